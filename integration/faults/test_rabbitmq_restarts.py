"""RabbitMQ killed, started again and throwing its clients out in mid-load: nothing that it confirmed is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from project import Project, Worker, wait_until
from servers.contract import Unavailable
from servers.missing import end_without
from servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

QUEUE_TYPES = ["classic", "quorum"]
# Slots of two workers.
SLOTS = 4


@pytest.fixture
def server_and_url(tmp_path: Path) -> Iterator[tuple[RabbitMQ, str]]:
    """A server of the test's own."""
    server = RabbitMQ()
    directory = tmp_path / "rabbitmq"
    directory.mkdir()
    try:
        url = server.start(directory)
    except Unavailable as error:
        end_without("RabbitMQ of our own", str(error))
    yield server, url
    server.stop()


@pytest.fixture
def server(server_and_url: tuple[RabbitMQ, str]) -> RabbitMQ:
    return server_and_url[0]


@pytest.fixture
def make_project(
    server_and_url: tuple[RabbitMQ, str], redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Project]]:
    projects: list[Project] = []
    monkeypatch.chdir(tmp_path)

    def make(queue_type: str) -> Project:
        projects.append(Project(tmp_path, server_and_url[1], redis_url, task_default_queue_type=queue_type))
        return projects[-1]

    yield make
    for project in projects:
        project.close()


def load(project: Project, count: int) -> None:
    late = project.task("late")
    with project.app.bulk():
        for number in range(count):
            late.delay(number, seconds=0.005)


def check(project: Project, workers: list[Worker], count: int, allowed: int) -> None:
    project.wait_for_effects(count, timeout=120)
    for worker in workers:
        worker.wait_idle()
    wait_until(lambda: left(project) == 0, "an empty queue")
    assert set(project.effects()) == set(range(count))
    assert project.repeated() <= allowed
    print(f"{project.repeated()} repeated")
    for worker in workers:
        assert worker.stop() == 0, worker.log[-3000:]


def left(project: Project) -> int:
    """Messages in the queue, with those that are delivered and not acknowledged yet."""
    with project.app.connection_for_read() as connection:
        return int(connection.channel().queue_declare(project.queue, passive=True).message_count)


@pytest.mark.parametrize("queue_type", QUEUE_TYPES)
def test_rabbitmq_killed_in_mid_load(
    server: RabbitMQ, make_project: Callable[[str], Project], queue_type: str
) -> None:
    """One worker alone gets back what it had, so that it runs nothing twice; one task runs through all restarts."""
    project = make_project(queue_type)
    worker = project.start_worker().wait_ready()
    count, restarts = 4000, 5
    project.task("late_hold").delay(count, 50.0)
    load(project, count)
    for restart in range(restarts):
        project.wait_for_effects((restart + 1) * count // (restarts + 2))
        server.crash()
        server.start_again()
    check(project, [worker], count + 1, allowed=0)


@pytest.mark.parametrize("queue_type", QUEUE_TYPES)
def test_rabbitmq_closes_all_connections_in_mid_load(
    server: RabbitMQ, make_project: Callable[[str], Project], queue_type: str
) -> None:
    """Of two workers one may get what the other runs, or has run and could not acknowledge."""
    project = make_project(queue_type)
    workers = [project.start_worker().wait_ready(), project.start_worker().wait_ready()]
    count, times = 6000, 10
    load(project, count)
    for time in range(times):
        project.wait_for_effects((time + 1) * count // (times + 2))
        server.control("close_all_connections", "the test says so")
    check(project, workers, count, allowed=times * (SLOTS + 16))
