"""A small mixed cluster: one worker of ours and one of Celery's on one broker, and clients of both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent
QBROKERS = SUPPORT.parents[2] / "packages" / "qbrokers" / "src"
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.05
STOP_SECONDS = 20.0
LOADER = {"q": "interop_q", "celery": "interop_celery"}


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Poll until `ready()`; fails the test when it does not come true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(POLL_SECONDS)


class Process:
    """A helper process in a session of its own, with its output in a file."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                env=env,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until the process has written `text`; fails with its log if it ends first."""
        wait_until(
            lambda: text in self.output() or self._process.poll() is not None, f"{text!r} in {self.log}"
        )
        assert text in self.output(), f"ended with {self._process.poll()}:\n{self.output()[-3000:]}"

    def stop(self) -> int:
        """TERM, then KILL whatever is left of the session.

        Returns:
            The exit code.
        """
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self._process.wait()


@dataclass
class Cluster:
    """Servers, queues, processes of one wiring."""

    broker_url: str
    result_url: str
    celery_python: Path
    directory: Path
    name: str
    q_transport: str = ""
    """The kombu transport of our side; empty for what it uses by itself."""
    celery_transport: str = ""
    workers: dict[str, Process] = field(default_factory=dict)
    clients: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(SUPPORT), *([str(QBROKERS)] if self.celery_transport else [])]
            ),
            "PYTHONUNBUFFERED": "1",
            "INTEROP_BROKER": self.broker_url,
            "INTEROP_RESULTS": self.result_url,
            "INTEROP_Q_TRANSPORT": self.q_transport,
            "INTEROP_CELERY_TRANSPORT": self.celery_transport,
            "INTEROP_QUEUE_Q": self.queue("q"),
            "INTEROP_QUEUE_CELERY": self.queue("celery"),
        }

    def queue(self, side: str) -> str:
        """The queue that the worker of `side` (`q` or `celery`) consumes."""
        return f"{self.name}-{side}"

    def node(self, side: str) -> str:
        """The node name of the worker of `side`."""
        return f"{side}-{self.name}@interop"

    def command(self, side: str, *words: str) -> list[str]:
        """The command line tool of `side`, with the application loaded."""
        python = self.celery_python if side == "celery" else Path(sys.executable)
        program = {"q": "qcli", "celery": "celery"}[side]
        return [str(python.parent / program), "-A", LOADER[side], *words]

    def start_worker(self, side: str, *options: str) -> Process:
        """Start the worker of `side` with two processes and events on, and wait until it consumes."""
        argv = self.command(side, "worker", "-l", "INFO", "-E", "-c", "2", "-n", self.node(side))
        worker = self.start(f"worker-{side}", [*argv, "-Q", self.queue(side), *options])
        self.workers[side] = worker
        worker.wait_for(f"{self.node(side)} ready.")
        return worker

    def start(self, name: str, argv: Sequence[str]) -> Process:
        return Process(argv, self.environment, self.directory / f"{name}.log")

    def stop(self) -> None:
        for client in self.clients.values():
            client.kill()
            client.communicate()
        for worker in self.workers.values():
            worker.stop()

    def client(self, side: str, lines: str) -> Any:
        """Run lines of Python as a client of `side`; their variable `answer` comes back by way of JSON.

        They find the tasks, `app`, `chain`, `group`, `chord`, `signature`, and the queues `Q` and `CELERY`.
        """
        if side not in self.clients:
            self.clients[side] = self._start_client(side)
        client = self.clients[side]
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(json.dumps(lines) + "\n")
        client.stdin.flush()
        line = client.stdout.readline()
        log = (self.directory / f"client-{side}.log").read_text()
        assert line, f"the client ended with {client.poll()}:\n{log[-3000:]}"
        reply = json.loads(line)
        assert "answer" in reply, f"{reply['error']}\n{log[-3000:]}"
        return reply["answer"]

    def tool(self, side: str, *words: str) -> str:
        """What the command line tool of `side` prints."""
        return self._run(self.command(side, *words))

    def _start_client(self, side: str) -> subprocess.Popen[str]:
        python = str(self.celery_python if side == "celery" else sys.executable)
        with (self.directory / f"client-{side}.log").open("wb") as log:
            return subprocess.Popen(
                [python, "-m", "interop_client", LOADER[side]],
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def _run(self, argv: Sequence[str]) -> str:
        done = subprocess.run(
            argv,
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{said}"
        return done.stdout
