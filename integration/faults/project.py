"""A project in a directory of its own whose tasks leave traces in a database, and its worker processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TASKS = Path(__file__).with_name("lab.py")


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
        lease: Seconds that the messages of a dead worker stay its own.
        settings: Further settings of the app; plain JSON.
    """

    def __init__(
        self,
        directory: Path,
        broker: str | None = None,
        backend: str | None = None,
        lease: float = 2.0,
        **settings: Any,
    ) -> None:
        self.directory = directory
        self.queue = f"lab-{os.getpid()}-{time.monotonic_ns()}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("Q_")},
            "LAB_BROKER": broker or "",
            "LAB_BACKEND": backend or "",
            "LAB_QUEUE": self.queue,
            "LAB_LEASE": str(lease),
            "LAB_SETTINGS": json.dumps(settings),
        }
        self.workers: list[Worker] = []
        shutil.copy(TASKS, directory / "lab.py")
        self._traces = sqlite3.connect(directory / "effects.db", timeout=30)
        self._traces.execute("pragma journal_mode=wal")
        self._traces.execute("create table effect (number integer, pid integer)")
        self._seen: list[int] = []
        self.app = self._load()

    def _load(self) -> Any:
        previous = os.environ.copy()
        os.environ.update(self.environment)
        try:
            namespace: dict[str, Any] = {"__name__": "lab"}
            exec(compile(TASKS.read_text(), "lab.py", "exec"), namespace)
        finally:
            os.environ.clear()
            os.environ.update(previous)
        self.nasty = list(namespace["NASTY"])
        return namespace["app"]

    def task(self, name: str) -> Any:
        return self.app.tasks[f"lab.{name}"]

    def effects(self) -> list[int]:
        """The numbers that tasks have traced, with repetitions."""
        query = "select number from effect where rowid > ? order by rowid"
        self._seen += (number for (number,) in self._traces.execute(query, (len(self._seen),)))
        return list(self._seen)

    def runs_by(self, worker: Worker) -> int:
        """How many traces the present children of `worker` have left."""
        pids = worker.children()
        query = f"select count(*) from effect where pid in ({','.join('?' * len(pids))})"
        return int(self._traces.execute(query, pids).fetchone()[0])

    def last_pid(self) -> int:
        """The process that left the last trace."""
        return int(self._traces.execute("select pid from effect order by rowid desc limit 1").fetchone()[0])

    def repeated(self) -> int:
        """How many traces there are beyond one for each number."""
        return len(self.effects()) - len(set(self._seen))

    def wait_for_effects(self, count: int, timeout: float = 60) -> None:
        """Return once `count` different numbers are traced; fail with the workers' last lines when they are not."""
        deadline = time.monotonic() + timeout
        while len(found := self.effects()) < count or len(set(found)) < count:
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {worker.log_path.name}\n{worker.log[-3000:]}" for worker in self.workers
                )
                raise AssertionError(f"{len(set(found))} of {count} tasks ran within {timeout} s\n{logs}")
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
        self._traces.close()


class Worker:
    """One worker with its children, in a process group of its own."""

    def __init__(self, project: Project, options: tuple[str, ...]) -> None:
        self.project = project
        name = () if "-n" in options else ("-n", f"w{len(project.workers)}@{project.queue}")
        self.log_path = project.directory / f"worker-{len(project.workers)}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "qcli",
                    "-A",
                    "lab",
                    "worker",
                    "-c",
                    "2",
                    "-l",
                    "INFO",
                    *name,
                    *options,
                ],
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

    def wait_idle(self) -> None:
        """Return once it holds no task any more."""
        control = self.project.app.control

        def idle() -> bool:
            replies = control.inspect(timeout=2.0, limit=1)
            states = [replies.active(), replies.reserved(), replies.scheduled()]
            return all(states) and not any(held for state in states for held in state.values())

        wait_until(idle, "the end of all tasks")

    def kill_all(self) -> None:
        """SIGKILL to the worker and every child at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def kill_main(self) -> None:
        """SIGKILL to the main process alone; its children are left to find out."""
        self.process.kill()
        self.process.wait(10)

    def kill_child(self, pick: Callable[[list[int]], int]) -> None:
        """SIGKILL to one child."""
        wait_until(self.children, "a child")
        try:
            os.kill(pick(self.children()), signal.SIGKILL)
        except ProcessLookupError:
            pass  # replaced a moment ago

    def resident(self) -> int:
        """Bytes of memory of the main process alone: what it shares with nobody."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return 1024 * sum(
            int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_", "Shared_"))
        )

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self, timeout: float = 30) -> int:
        self.process.terminate()
        return self.process.wait(timeout)
