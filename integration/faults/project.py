"""A project in a directory of its own whose tasks leave traces in a database, and its worker processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TASKS = """
import os, sqlite3, time
from qcore import App

app = App("lab", broker=os.environ.get("LAB_BROKER") or None, backend=os.environ.get("LAB_BACKEND") or None)
app.conf.task_default_queue = os.environ["LAB_QUEUE"]
app.conf.broker_transport_options = {"lease_seconds": 2.0}
app.conf.broker_connection_retry_on_startup = True


def trace(number):
    with sqlite3.connect("effects.db", timeout=30) as db:
        db.execute("insert into effect (number, pid) values (?, ?)", (number, os.getpid()))


@app.task(acks_late=True, reject_on_worker_lost=True)
def late(number, seconds=0.0):
    if seconds:
        time.sleep(seconds)  # the work that a kill interrupts
    trace(number)
    return number


@app.task
def add(x, y):
    return x + y
"""


def wait_until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Return once `condition` holds; fail naming `what` when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout} s"
        time.sleep(0.02)


class Project:
    """One app with a queue of its own.

    Args:
        directory: working directory; empty.
        broker: URL, or None for the embedded broker.
        backend: URL, or None for the embedded store.
    """

    def __init__(self, directory: Path, broker: str | None = None, backend: str | None = None) -> None:
        self.directory = directory
        self.queue = f"lab-{os.getpid()}-{time.monotonic_ns()}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("Q_")},
            "LAB_BROKER": broker or "",
            "LAB_BACKEND": backend or "",
            "LAB_QUEUE": self.queue,
        }
        self.workers: list[Worker] = []
        (directory / "lab.py").write_text(TASKS)
        with self._effects() as db:
            db.execute("pragma journal_mode=wal")
            db.execute("create table effect (number integer, pid integer)")
        self.app = self._load()

    def _effects(self) -> sqlite3.Connection:
        return sqlite3.connect(self.directory / "effects.db", timeout=30)

    def _load(self) -> Any:
        previous = os.environ.copy()
        os.environ.update(self.environment)
        try:
            namespace: dict[str, Any] = {"__name__": "lab"}
            exec(compile(TASKS, "lab.py", "exec"), namespace)
        finally:
            os.environ.clear()
            os.environ.update(previous)
        return namespace["app"]

    def task(self, name: str) -> Any:
        return self.app.tasks[f"lab.{name}"]

    def effects(self) -> list[int]:
        """The numbers that tasks have traced, with repetitions."""
        db = self._effects()
        try:
            return [number for (number,) in db.execute("select number from effect")]
        finally:
            db.close()

    def wait_for_effects(self, count: int, timeout: float = 60) -> None:
        """Return once `count` different numbers are traced; fail with the workers' last lines when they are not."""
        deadline = time.monotonic() + timeout
        while (found := len(set(self.effects()))) < count:
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {worker.log_path.name}\n{worker.log[-3000:]}" for worker in self.workers
                )
                raise AssertionError(f"{found} of {count} tasks ran within {timeout} s\n{logs}")
            time.sleep(0.02)

    def start_worker(self, *options: str) -> Worker:
        worker = Worker(self, options)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.kill_all()
        with self.app.connection_for_write() as connection:
            self.app.amqp.queues[self.queue](connection.default_channel).delete()
        self.app.close()


class Worker:
    """One worker with its children, in a process group of its own."""

    def __init__(self, project: Project, options: tuple[str, ...]) -> None:
        self.log_path = project.directory / f"worker-{len(project.workers)}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qcli", "-A", "lab", "worker", "-c", "2", "-l", "INFO", *options],
                cwd=project.directory,
                env=project.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_ready(self) -> Worker:
        wait_until(lambda: "ready." in self.log or self.process.poll() is not None, "the start of the worker")
        assert self.process.poll() is None, self.log
        return self

    def kill_all(self) -> None:
        """SIGKILL to the worker and every child at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self, timeout: float = 30) -> int:
        self.process.terminate()
        return self.process.wait(timeout)
