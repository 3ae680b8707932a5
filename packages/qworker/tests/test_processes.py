"""Real worker processes on the embedded broker: signals, killed children, killed workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_helpers import wait_until

from qcore import App
from qcore.errors import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from qworker.wakeup import Wakeup

PROGRAM = Path(__file__).parent / "programs" / "worker_program.py"
FAST_LEASE = {"broker_transport_options": {"lease_seconds": 2.0}}


class Program:
    """One worker process."""

    def __init__(self, directory: Path, options: dict[str, Any]) -> None:
        self.log_path = directory / f"worker-{len(list(directory.glob('worker-*')))}.log"
        self.log_file = self.log_path.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), repr(options)],
            cwd=directory, stdout=self.log_file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        wait_until(lambda: "ready." in self.log or self.process.poll() is not None, "the worker's start")
        assert self.process.poll() is None, self.log

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def kill(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        return self.process.wait(20)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.log_file.close()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def client(directory: Path) -> Iterator[App]:
    with App("client", set_as_current=False) as app:
        app.conf.update(FAST_LEASE)
        yield app


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def start(**options: Any) -> Program:
        options.setdefault("concurrency", 2)
        options["settings"] = {**FAST_LEASE, **options.get("settings", {})}
        programs.append(Program(directory, options))
        return programs[-1]

    yield start
    for program in programs:
        program.end()


def journal(directory: Path) -> list[str]:
    path = directory / "journal"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_term_finishes_what_runs_and_hands_back_the_rest(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    first = start()
    results = [client.send_task("p.late" if n % 2 else "p.early", (n, 0.3)) for n in range(12)]
    wait_until(lambda: "start 1" in journal(directory), "the first tasks")
    first.kill(signal.SIGTERM)
    assert first.wait() == 0
    assert "Warm shutdown" in first.log
    done = journal(directory)
    assert sorted(line.replace("start", "end") for line in done if line.startswith("start")) == sorted(
        line for line in done if line.startswith("end")
    )
    start()
    assert [result.get(timeout=20) for result in results] == list(range(12))
    assert len(journal(directory)) == 24


def test_second_term_changes_nothing(directory: Path, client: App, start: Callable[..., Program]) -> None:
    program = start()
    result = client.send_task("p.early", (1, 1.0))
    wait_until(lambda: journal(directory), "the task")
    program.kill(signal.SIGTERM)
    wait_until(lambda: "Warm" in program.log, "the announcement")
    program.kill(signal.SIGTERM)
    assert program.wait() == 0
    assert result.get(timeout=5) == 1


def test_quit_ends_at_once_and_late_tasks_come_back(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    program = start()
    result = client.send_task("p.late", (1, 30))
    wait_until(lambda: journal(directory), "the task")
    program.kill(signal.SIGQUIT)
    assert program.wait() == 1
    assert "Cold shutdown" in program.log
    assert "Restoring 1 unacknowledged message(s)" in program.log
    start()
    wait_until(lambda: journal(directory) == ["start 1", "start 1"], "the second run")
    assert not result.ready()


def test_task_whose_message_is_gone_fails_in_a_cold_shutdown(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    program = start()
    result = client.send_task("p.early", (1, 30))
    wait_until(lambda: journal(directory), "the task")
    program.kill(signal.SIGQUIT)
    assert program.wait() == 1
    with pytest.raises(WorkerLostError):
        result.get(timeout=5)


def test_interrupt_is_warm_first_and_cold_then(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    program = start()
    client.send_task("p.late", (1, 30))
    wait_until(lambda: journal(directory), "the task")
    program.kill(signal.SIGINT)
    wait_until(lambda: "Hitting Ctrl+C again will initiate cold shutdown" in program.log, "the announcement")
    program.kill(signal.SIGINT)
    assert program.wait() == 1


def test_soft_shutdown_waits_for_its_time(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    program = start(settings={"worker_soft_shutdown_timeout": 15.0})
    result = client.send_task("p.early", (1, 1.0))
    wait_until(lambda: journal(directory), "the task")
    program.kill(signal.SIGQUIT)
    assert program.wait() in (0, 1)
    assert "Initiating Soft Shutdown, terminating in 15.0 seconds" in program.log
    assert result.get(timeout=5) == 1


def test_soft_shutdown_ends_when_its_time_is_over(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    program = start(settings={"worker_soft_shutdown_timeout": 0.5})
    client.send_task("p.late", (1, 30))
    wait_until(lambda: journal(directory), "the task")
    program.kill(signal.SIGQUIT)
    assert program.wait() == 1
    assert journal(directory) == ["start 1"]


def test_killed_worker_loses_no_late_task(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    first = start()
    results = [client.send_task("p.late", (n, 0.2)) for n in range(10)]
    wait_until(lambda: "end 1" in journal(directory), "the first tasks")
    first.kill(signal.SIGKILL)
    first.wait()
    start()
    assert [result.get(timeout=30) for result in results] == list(range(10))


def test_child_that_dies_fails_its_task_alone(client: App, start: Callable[..., Program]) -> None:
    start()
    others = [client.send_task("p.add", (n, n)) for n in range(10)]
    with pytest.raises(WorkerLostError, match=r"signal 9 \(SIGKILL\)"):
        client.send_task("p.kill").get(timeout=20)
    assert [other.get(timeout=20) for other in others] == [2 * n for n in range(10)]


def test_task_that_killed_its_process_runs_again_when_it_may(
    client: App, start: Callable[..., Program]
) -> None:
    start()
    assert client.send_task("p.kill_once", (7,)).get(timeout=20) == 7


def test_task_that_always_kills_is_put_aside(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    start(settings={"broker_max_deliveries": 3})
    with pytest.raises(WorkerLostError):
        client.send_task("p.kill_always").get(timeout=30)
    assert journal(directory) == ["killed"] * 3
    assert client.send_task("p.add", (1, 1)).get(timeout=20) == 2


def test_hard_limit_ends_the_task(client: App, start: Callable[..., Program]) -> None:
    program = start()
    with pytest.raises(TimeLimitExceeded):
        client.send_task("p.hard").get(timeout=20)
    assert "Hard time limit (0.5s) exceeded for p.hard[" in program.log


def test_soft_limit_is_raised_in_the_task(client: App, start: Callable[..., Program]) -> None:
    program = start()
    assert client.send_task("p.soft").get(timeout=20) == "cleaned up"
    assert "Soft time limit (0.3s) exceeded for p.soft[" in program.log


def test_running_task_can_be_terminated(directory: Path, client: App, start: Callable[..., Program]) -> None:
    start()
    result = client.send_task("p.early", (1, 60))
    wait_until(lambda: journal(directory), "the task")
    client.control.revoke(result.id, terminate=True, signal="SIGKILL")
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get(timeout=20)


def test_revocation_survives_a_restart_with_a_state_file(
    directory: Path, client: App, start: Callable[..., Program]
) -> None:
    program = start(statedb="worker.state")
    reply = client.control.revoke("some-id", reply=True, timeout=5, limit=1)
    assert "flagged as revoked" in str(reply)
    program.kill(signal.SIGKILL)
    program.wait()
    start(statedb="worker.state")
    with pytest.raises(TaskRevokedError):
        client.send_task("p.add", (1, 1), task_id="some-id").get(timeout=20)


def test_bad_statedb_stops_the_start_with_a_reason(directory: Path) -> None:
    (directory / "worker.state").write_bytes(b"not a database, certainly not one" * 100)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), repr({"statedb": "worker.state", "concurrency": 1})],
        cwd=directory, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--statedb" in done.stderr


def test_broker_that_cannot_be_reached_is_named(directory: Path) -> None:
    settings = {"broker_url": "amqp://nobody@127.0.0.1:1//", "broker_connection_retry_on_startup": False}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), repr({"concurrency": 1, "settings": settings})],
        cwd=directory, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot connect to the broker amqp://nobody" in done.stderr
    assert "Traceback" not in done.stderr


def test_wakeup_after_close_is_harmless() -> None:
    wakeup = Wakeup()
    wakeup.close()
    wakeup.set()
