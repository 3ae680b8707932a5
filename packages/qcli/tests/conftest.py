"""A project of its own in a temporary directory, and `qcli` run in it as a process."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

TASKS = """
from qcore import App
from qworker.remote import control_command, inspect_command

app = App("proj")


@control_command(args=[("n", int)], signature="[N=1]")
def increase_prefetch_count(state, n=1):
    state.consumer.qos.increment_eventually(n)
    return {"ok": f"prefetch count incremented by {n}"}


@inspect_command
def current_prefetch_count(state):
    return {"prefetch_count": state.consumer.qos.value}


@app.task
def add(x, y):
    return x + y


@app.task
def boom():
    raise ValueError("no")
"""


class Project:
    """Runs `qcli` in a directory with `proj.py`, on the embedded broker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "proj.py").write_text(TASKS)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("Q_", "CELERY"))
        } | {"NO_COLOR": "1", "PYTHONWARNINGS": "error"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "qcli", *words]

    def run(self, *words: str, stdin: str = "", timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), cwd=self.directory, env=self.environment, input=stdin,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def start(self, *words: str) -> "Running":
        return Running(
            subprocess.Popen(
                self.command(*words),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )


class Running:
    """A command that goes on; what it prints is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._changed:
                self.text += line
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str, timeout: float = 20) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: re.search(pattern, self.text), timeout), self.text

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 20) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
        self._reader.join(5)
        self.process.stdout.close()
        return code


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    """A project with a worker that runs."""
    project = Project(tmp_path_factory.mktemp("live"))
    worker = project.start("-A", "proj", "worker", "-c", "1", "-l", "INFO", "-n", "w1@%h", "-E")
    worker.wait_for(r"ready\.")
    project.worker = worker
    yield project
    assert worker.stop() == 0
