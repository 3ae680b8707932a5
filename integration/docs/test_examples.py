"""The examples in the documentation do what they say: each page is a small project that is made and run.

A comment before a fenced block says what becomes of it:

- `<!-- file: tasks.py -->` the block is a file of the project; the first one holds the app.
- `<!-- run -->` the block is a Python program that must end well; a worker of the app runs beside it.
- `<!-- output -->` the block is what the program before it prints, to the letter.
- `<!-- shell -->` the lines of the block that begin with `$` are run; a worker of the app runs beside them.
- `<!-- worker: OPTIONS -->` (no block) further options of the page's worker.
- `<!-- no worker -->` (no block) the page needs none.

Blocks without such a comment are text. No broker is configured, so the embedded one serves.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
MARKED = re.compile(
    r"^<!-- (?P<kind>file|run|output|shell|worker|no worker)(?:: (?P<value>[^>]*?))? -->\n"
    r"(?:\s*^```(?P<lang>\w*)\n(?P<text>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
WITHOUT_BLOCK = ("worker", "no worker")


@dataclass
class Step:
    """One block that is run, and what it has to print."""

    kind: str
    text: str
    line: int
    output: str | None = None


@dataclass
class Page:
    """What a page wants to be done."""

    path: Path
    files: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    worker_options: list[str] = field(default_factory=list)
    needs_worker: bool = True

    @property
    def module(self) -> str:
        """Module of the app."""
        return next(iter(self.files)).removesuffix(".py").replace("/", ".")


def read(path: Path) -> Page:
    """The marked blocks of a page; a comment that has no block where it needs one is an error."""
    page, source = Page(path), path.read_text()
    for found in MARKED.finditer(source):
        kind, value, text = found["kind"], (found["value"] or "").strip(), found["text"]
        line = source.count("\n", 0, found.start()) + 1
        assert text is not None or kind in WITHOUT_BLOCK, f"{path}:{line}: no block follows the comment"
        if kind == "file":
            page.files[value] = text
        elif kind == "output":
            page.steps[-1].output = text
        elif kind == "worker":
            page.worker_options = value.split()
        elif kind == "no worker":
            page.needs_worker = False
        else:
            page.steps.append(Step(kind, text, line))
    return page


def pages() -> list[Page]:
    """The pages that have something to run."""
    found = [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "packages").glob("*/README.md"))]
    return [page for page in map(read, found) if page.files or page.steps]


@contextmanager
def worker(page: Page, directory: Path, env: dict[str, str]) -> Iterator[None]:
    """A worker of the page's app, ended with SIGTERM."""
    log = directory / "worker.log"
    command = [sys.executable, "-m", "qcli", "-A", page.module, "worker", "-l", "info", *page.worker_options]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=directory, env=env, stdout=out, stderr=out)
    try:
        wait_until_ready(process, log)
        yield
    finally:
        process.terminate()
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        if code:
            print(log.read_text())
    assert code == 0, f"the worker of {page.path.name} ended with {code}"


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the worker says that it consumes: commands sent before would find nobody."""
    deadline = time.monotonic() + SECONDS
    while " ready." not in log.read_text():
        assert process.poll() is None, f"the worker ended with {process.returncode}"
        assert time.monotonic() < deadline, "the worker was not ready in time"
        time.sleep(0.05)


def execute(page: Page, step: Step, directory: Path, env: dict[str, str]) -> None:
    """Run one block and compare its output."""
    if step.kind == "run":
        command = [sys.executable, "-c", step.text]
    else:
        lines = [line[2:] for line in step.text.splitlines() if line.startswith("$ ")]
        command = ["sh", "-ec", "\n".join(lines)]
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=SECONDS)
    where = f"{page.path}:{step.line}"
    assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"
    if step.output is not None:
        assert done.stdout == step.output, f"{where}\n{done.stderr}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.path.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Page, tmp_path: Path) -> None:
    for name, text in page.files.items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    scripts = str(Path(sys.executable).parent)
    env = {name: value for name, value in os.environ.items() if not name.startswith("Q_")}
    env |= {"PATH": f"{scripts}{os.pathsep}{env.get('PATH', '')}", "PYTHONPATH": str(tmp_path)}
    if not page.needs_worker:
        for step in page.steps:
            execute(page, step, tmp_path, env)
        return
    try:
        with worker(page, tmp_path, env):
            for step in page.steps:
                execute(page, step, tmp_path, env)
    except BaseException:
        print((tmp_path / "worker.log").read_text())
        raise


def test_every_page_that_is_meant_to_be_run_is_found() -> None:
    assert {"getting-started.md", "tasks.md", "calling.md", "workflows.md"} <= {p.path.name for p in pages()}
