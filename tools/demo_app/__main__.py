"""The demo: count words over every text file below a folder, through a worker on the embedded broker.

Starts a worker, sends a chord of one task per file, shows a progress bar, prints what came out. Ctrl-C stops
worker and demo cleanly.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).resolve().parent
SKIPPED = {".git", ".hatch", ".venv", "node_modules", "__pycache__", ".q", "dist"}
TEXT = {
    ".py",
    ".md",
    ".txt",
    ".toml",
    ".rst",
    ".cfg",
    ".ini",
    ".yml",
    ".yaml",
    ".json",
    ".lua",
    ".html",
    ".css",
    ".js",
}
SECONDS_TO_START = 20
SECONDS_TO_FINISH = 120


def text_files(folder: Path, limit: int) -> list[str]:
    """The text files below `folder`, at most `limit`."""
    found = []
    for directory, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name not in SKIPPED and not name.startswith(".venv"))
        found += [os.path.join(directory, file) for file in sorted(files) if Path(file).suffix in TEXT]
    return found[:limit]


def start_worker(directory: str, concurrency: int) -> subprocess.Popen[bytes]:
    """A worker process of its own, as a user starts it: `qcli -A wordcount worker`."""
    log = open(Path(directory) / "worker.log", "wb")  # noqa: SIM115 - the worker writes to it until the end
    command = [
        sys.executable,
        "-m",
        "qcli",
        "-A",
        "wordcount",
        "worker",
        "-c",
        str(concurrency),
        "-l",
        "INFO",
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.Popen(
        command, cwd=directory, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def stop_worker(worker: subprocess.Popen[bytes]) -> None:
    """Ask it to finish what it runs; kill it when it does not."""
    if worker.poll() is None:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def run(console: Console, files: list[str], folder: Path, worker: subprocess.Popen[bytes], log: Path) -> None:
    """Send the work, show how it goes, print the result."""
    from wordcount import app, count_words, fetch_title, merge

    from qcore import chord

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        started = time.monotonic()
        title = fetch_title.delay(folder.name or str(folder))
        job = chord([count_words.s(file) for file in files], merge.s()).apply_async()
        sent = time.monotonic() - started
        bar = progress.add_task("counting words", total=len(files))
        deadline = started + SECONDS_TO_START + SECONDS_TO_FINISH
        while not job.ready():
            progress.update(bar, completed=job.parent.completed_count())
            if worker.poll() is not None:
                raise SystemExit(
                    f"the worker ended with code {worker.returncode}; its log:\n{log.read_text()[-4000:]}"
                )
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"the work was not done in time; the worker's log:\n{log.read_text()[-4000:]}"
                )
            time.sleep(0.05)
        totals = job.get(timeout=10)
        seconds = time.monotonic() - started
        progress.update(bar, completed=len(files))
        retried = progress.add_task("a task that fails twice", total=1)
        heading = title.get(timeout=30)
        progress.update(retried, completed=1)

    words = totals.pop("", 0)
    table = Table(title=heading)
    table.add_column("word")
    table.add_column("times", justify="right")
    for word, times in totals.items():
        table.add_row(word, f"{times:,}")
    console.print(table)
    console.print(
        f"{len(files):,} files, {words:,} words: sent in {sent:.2f} s, done in {seconds:.2f} s "
        f"({len(files) / seconds:,.0f} tasks/s). One task failed twice and was retried with back-off."
    )
    console.print(
        "\n[bold]Where to look next[/bold]\n"
        "  tools/demo_app/wordcount.py        the app that ran just now\n"
        "  qcli -A wordcount worker -l info   start its worker yourself (in tools/demo_app)\n"
        "  qcli -A wordcount status           see who is online\n"
        "  README.md                          your first app, in fifteen lines"
    )
    app.close()


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("folder", nargs="?", default=str(HERE.parent.parent), help="default: this repository")
    parser.add_argument("-c", "--concurrency", type=int, default=2)
    parser.add_argument("--files", type=int, default=2000, help="count at most so many files")
    options = parser.parse_args()
    folder = Path(options.folder).resolve()
    if not folder.is_dir():
        parser.error(f"{folder} is no folder")
    files = text_files(folder, options.files)
    if not files:
        parser.error(f"there are no text files below {folder}")
    console = Console()
    with tempfile.TemporaryDirectory(prefix="q-demo-") as directory:
        os.chdir(directory)  # the embedded broker lies in .q/ of the working directory
        sys.path.insert(0, str(HERE))
        console.print(f"Starting a worker with {options.concurrency} processes on the embedded broker …")
        worker = start_worker(directory, options.concurrency)
        try:
            run(console, files, folder, worker, Path(directory) / "worker.log")
        except KeyboardInterrupt:
            console.print("\nStopped. The worker finishes what it runs and goes.")
            return 130
        finally:
            stop_worker(worker)
            os.chdir(HERE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
