"""Tasks that kill their process or worker, and tasks that nobody knows, end in `<queue>.dead` (B4, B5, B11)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import kombu
import pytest
from project import Project, Worker, wait_until

BROKERS = ("embedded", "redis", "amqp")

KILLERS = """
import signal

app.conf.broker_max_deliveries = 3


def attempts(number):
    with sqlite3.connect("effects.db", timeout=30) as db:
        return db.execute("select count(*) from effect where number = ?", (number,)).fetchone()[0]


@app.task(acks_late=True, reject_on_worker_lost=True)
def kill_child(number, times):
    trace(number)
    if attempts(number) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@app.task(acks_late=True, reject_on_worker_lost=True)
def kill_worker(number, times):
    trace(number)
    if attempts(number) <= times:
        os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)
    return number
"""

LATE = """

@app.task
def newcomer(x):
    return x + 1
"""


@pytest.fixture
def project_on(make_project: Callable[[str], Project]) -> Callable[[str], Project]:
    def make(broker: str) -> Project:
        project = make_project(broker)
        extend(project, KILLERS)
        return project

    return make


def extend(project: Project, source: str) -> None:
    with (project.directory / "lab.py").open("a") as file:
        file.write(source)


def dead(project: Project) -> list[Any]:
    """The messages in `<queue>.dead`; they stay there."""
    with project.app.connection_for_read() as connection:
        queue = kombu.Queue(f"{project.queue}.dead", durable=True, channel=connection.channel())
        queue.queue_declare()
        found = []
        while (message := queue.get(no_ack=False)) is not None:
            found.append(message)
        for message in found:
            message.requeue()
        flush = getattr(queue.channel, "flush", None)
        if flush is not None:
            flush()
        return found


def purge_dead(project: Project) -> None:
    with project.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(f"{project.queue}.dead")


def keep_alive(project: Project, until: Callable[[], object], what: str) -> Worker:
    """Start a worker, again whenever it is dead, until the condition holds."""
    worker = project.start_worker()

    def looked() -> object:
        nonlocal worker
        if worker.process.poll() is not None:
            worker = project.start_worker()
        return until()

    wait_until(looked, what, timeout=90)
    return worker


@pytest.mark.parametrize("broker", BROKERS)
def test_a_task_that_always_kills_its_process_runs_max_deliveries_times(
    project_on: Callable[[str], Project], broker: str
) -> None:
    project = project_on(broker)
    worker = project.start_worker().wait_ready()

    poison = project.app.send_task("lab.kill_child", (1, 99))
    others = [project.task("add").delay(n, n) for n in range(20)]
    error = poison.get(timeout=60, propagate=False)

    assert type(error).__name__ == "WorkerLostError"
    assert "3 deliveries ended with the death" in str(error)
    assert poison.state == "FAILURE"
    assert project.effects() == [1, 1, 1]
    assert [other.get(timeout=20) for other in others] == [2 * n for n in range(20)]
    wait_until(lambda: dead(project), "the dead letter")
    (message,) = dead(project)
    purge_dead(project)
    headers = message.headers
    assert headers["id"] == poison.id
    assert "3 deliveries" in headers["x-dead-letter-reason"]
    assert headers["x-dead-letter-deliveries"] == 3
    assert headers["x-dead-letter-queue"] == project.queue
    assert headers["x-dead-letter-first-death"] <= headers["x-dead-letter-last-death"]
    assert "@" in headers["x-dead-letter-node"]
    assert "is put aside" in worker.log
    assert worker.process.poll() is None


@pytest.mark.parametrize("broker", BROKERS)
def test_a_task_that_kills_its_process_twice_succeeds_at_last(
    project_on: Callable[[str], Project], broker: str
) -> None:
    project = project_on(broker)
    project.start_worker().wait_ready()

    assert project.app.send_task("lab.kill_child", (1, 2)).get(timeout=60) == 1

    assert project.effects() == [1, 1, 1]
    assert dead(project) == []


@pytest.mark.parametrize("broker", BROKERS)
def test_a_task_that_always_kills_its_worker_is_put_aside(
    project_on: Callable[[str], Project], broker: str
) -> None:
    project = project_on(broker)
    poison = project.app.send_task("lab.kill_worker", (1, 99))
    others = [project.task("late").delay(n) for n in range(100, 110)]

    keep_alive(project, poison.ready, "the end of the poisonous task")

    assert type(poison.get(propagate=False)).__name__ == "WorkerLostError"
    assert project.effects().count(1) == 3
    assert [other.get(timeout=20) for other in others] == list(range(100, 110))
    wait_until(lambda: dead(project), "the dead letter")
    (message,) = dead(project)
    purge_dead(project)
    assert message.headers["id"] == poison.id
    assert message.headers["x-dead-letter-deliveries"] == 3


@pytest.mark.parametrize("broker", BROKERS)
def test_a_task_that_kills_its_worker_twice_succeeds_at_last(
    project_on: Callable[[str], Project], broker: str
) -> None:
    project = project_on(broker)
    result = project.app.send_task("lab.kill_worker", (1, 2))

    keep_alive(project, result.ready, "the end of the task")

    assert result.get(timeout=5) == 1
    assert project.effects() == [1, 1, 1]


@pytest.mark.parametrize("broker", BROKERS)
def test_clean_returns_do_not_count(project_on: Callable[[str], Project], broker: str) -> None:
    project = project_on(broker)
    results = [project.task("late").delay(number, 0.4) for number in range(24)]

    for _ in range(5):
        worker = project.start_worker().wait_ready()
        assert worker.stop() == 0
    project.start_worker()

    assert [result.get(timeout=60) for result in results] == list(range(24))
    assert sorted(project.effects()) == list(range(24))


@pytest.mark.parametrize("broker", BROKERS)
def test_an_unregistered_task_is_parked_and_can_be_replayed(
    project_on: Callable[[str], Project], broker: str
) -> None:
    project = project_on(broker)
    worker = project.start_worker().wait_ready()
    result = project.app.send_task("lab.newcomer", (1,))
    assert type(result.get(timeout=20, propagate=False)).__name__ == "NotRegistered"
    wait_until(lambda: dead(project), "the dead letter")
    assert worker.stop() == 0

    extend(project, LATE)
    project.start_worker().wait_ready()
    replay = subprocess.run(
        [sys.executable, "-m", "qcli", "-A", "lab", "dlq", "replay", "--all", "--json"],
        cwd=project.directory, env=project.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert replay.returncode == 0, replay.stderr
    assert [entry["id"] for entry in json.loads(replay.stdout)] == [result.id]
    # Another object: a result that has seen a final state does not look again.
    wait_until(
        lambda: project.app.AsyncResult(result.id).state == "SUCCESS", "the success of the replayed task"
    )
    assert dead(project) == []
