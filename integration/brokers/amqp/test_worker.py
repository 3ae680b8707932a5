"""Our worker on RabbitMQ: tasks for later, quorum queues, killed and cut workers, counted effects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from project import Project, wait_until
from proxy import Proxy

from qbrokers.testing.untyped import kombu


@pytest.fixture
def make_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amqp_url: str
) -> Iterator[Callable[..., Project]]:
    projects: list[Project] = []
    monkeypatch.chdir(tmp_path)

    def make(broker: str = amqp_url, **options: Any) -> Project:
        projects.append(Project(tmp_path, broker, **options))
        return projects[-1]

    yield make
    for project in projects:
        project.close()


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_tasks_for_later_run_in_time_and_once(make_project: Callable[..., Project], queue_type: str) -> None:
    project = make_project(task_default_queue_type=queue_type, worker_prefetch_multiplier=1)
    worker = project.start_worker().wait_ready()
    begun = time.monotonic()
    for number in range(30):
        project.task("early").apply_async((number,), countdown=7)
    project.task("early").delay(100)
    project.wait_for_effects(1)
    assert project.effects() == [100]
    wait_until(lambda: depth_of_ladder(project) == 30, "the move of the tasks into the delay queues")
    project.wait_for_effects(31)
    assert time.monotonic() - begun >= 7
    worker.wait_idle()
    assert project.repeated() == 0
    assert "Traceback" not in worker.log


def depth_of_ladder(project: Project) -> int:
    with project.app.connection_for_read() as connection:
        channel = connection.channel()
        return sum(
            channel.queue_declare(f"celery_delayed_{level}", passive=True).message_count for level in range(5)
        )


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_killed_worker_loses_no_late_task(make_project: Callable[..., Project], queue_type: str) -> None:
    project = make_project(task_default_queue_type=queue_type)
    first = project.start_worker().wait_ready()
    for number in range(300):
        project.task("late").delay(number)
    wait_until(lambda: len(project.effects()) > 40, "some load")
    first.kill_all()
    second = project.start_worker().wait_ready()
    project.wait_for_effects(300)
    second.wait_idle()
    # Those that the first had done but not acknowledged come again; it prefetches no more than that.
    assert project.repeated() <= 64
    assert depth(project) == 0


def depth(project: Project) -> int:
    with project.app.connection_for_read() as connection:
        return int(connection.channel().queue_declare(project.queue, passive=True).message_count)


@pytest.fixture
def proxy(amqp_url: str) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", urlsplit(amqp_url).port or 5672) as proxy:
        yield proxy


def test_cut_connections_lose_nothing(
    proxy: Proxy, make_project: Callable[..., Project], amqp_url: str
) -> None:
    project = make_project(f"amqp://guest:guest@127.0.0.1:{proxy.port}{urlsplit(amqp_url).path}")
    worker = project.start_worker().wait_ready()
    for number in range(400):
        if number in (100, 200, 300):
            proxy.cut()
        project.task("late").delay(number)
    project.wait_for_effects(400)
    worker.wait_idle()
    assert worker.process.poll() is None
    assert depth(project) == 0


def test_retries_with_a_delay_all_end_on_a_quorum_queue(make_project: Callable[..., Project]) -> None:
    project = make_project(task_default_queue_type="quorum")
    project.start_worker().wait_ready()
    for number in range(40):
        project.task("early").apply_async((number,), countdown=1 + number % 9)
    project.wait_for_effects(40)
    assert project.repeated() == 0


def test_stock_client_and_our_consumer_share_a_queue(amqp_url: str, queue: Any) -> None:
    with kombu.Connection(amqp_url) as stock:
        kombu.Producer(stock.channel()).publish(
            {"n": 1}, exchange=queue.exchange, routing_key=queue.routing_key
        )
    message = queue.get()
    assert message.decode() == {"n": 1}
    message.ack()
    queue.channel.flush()
    with kombu.Connection(amqp_url) as stock:
        assert stock.channel().queue_declare(queue.name, passive=True).message_count == 0
