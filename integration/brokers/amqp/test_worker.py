"""Our worker on RabbitMQ: tasks for later, quorum queues, killed and cut workers, counted effects."""

from __future__ import annotations

import time
from collections import Counter
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


RETRYING = """

@app.task(acks_late=True)
def again(number):
    trace(number)
    if again.request.retries < 1:
        raise again.retry(countdown=1 + number % 3)
    return number
"""


def extend(project: Project, source: str) -> None:
    with (project.directory / "lab.py").open("a") as file:
        file.write(source)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_two_hundred_retries_with_a_countdown_all_end(
    make_project: Callable[..., Project], queue_type: str
) -> None:
    """Each is run, waits 1 to 3 s in the delay queues or the worker, and is run again (B10)."""
    project = make_project(task_default_queue_type=queue_type)
    extend(project, RETRYING)
    worker = project.start_worker().wait_ready()
    with project.app.bulk():
        for number in range(200):
            project.app.send_task("lab.again", (number,))
    wait_until(lambda: len(project.effects()) >= 400, "the second runs", timeout=30)
    worker.wait_idle()
    assert Counter(project.effects()) == dict.fromkeys(range(200), 2)
    assert depth(project) == depth_of_ladder(project) == 0


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_worker_holds_no_more_than_its_prefetch_count(
    make_project: Callable[..., Project], queue_type: str
) -> None:
    """Two slots, two messages for each: the others stay in the queue, for other workers."""
    project = make_project(task_default_queue_type=queue_type, worker_prefetch_multiplier=2)
    project.start_worker().wait_ready()
    for number in range(20):
        project.task("late_hold").delay(number, 3.0)
    project.wait_for_effects(2)
    wait_until(lambda: depth(project) <= 16, "the worker to be full")
    with pytest.raises(AssertionError, match="did not happen"):
        wait_until(lambda: depth(project) < 16, "more", timeout=1)
    assert len(project.effects()) == 2


def test_worker_runs_the_highest_priority_first(make_project: Callable[..., Project]) -> None:
    project = make_project(task_queue_max_priority=9, worker_prefetch_multiplier=1)
    order = [3, 9, 0, 6, 1, 8, 2, 7, 5, 4]
    for number in order:
        project.task("late").apply_async((number,), priority=number)
    project.start_worker("-P", "solo")
    project.wait_for_effects(10)
    assert project.effects() == sorted(order, reverse=True)


def test_priorities_do_no_harm_on_a_quorum_queue(make_project: Callable[..., Project]) -> None:
    project = make_project(task_default_queue_type="quorum")
    project.start_worker()
    for number in range(10):
        project.task("late").apply_async((number,), priority=number)
    project.wait_for_effects(10)
    assert project.repeated() == 0


def test_quorum_queue_counts_the_deliveries_that_a_killed_worker_lost(
    make_project: Callable[..., Project], connect: Callable[..., Any]
) -> None:
    """Also deaths that nobody noted down: the flag of a classic queue tells of one at most."""
    project = make_project(task_default_queue_type="quorum")
    project.task("late_hold").delay(1, 60.0)
    for death in range(1, 3):
        connection = connect()
        queue = project.app.amqp.queues[project.queue](connection.channel())
        message = queue.get()
        assert message.headers["x-delivery-count"] == death - 1
        connection.connection.transport.close()
        wait_until(lambda: depth(project) == 1, "the return of the message")
    worker = project.start_worker().wait_ready()
    project.wait_for_effects(1)
    worker.kill_all()
    # The worker has put a copy into its place that has its losses written down, and that it lost as well.
    wait_until(lambda: depth(project) == 1, "the return of the message")
    message = project.app.amqp.queues[project.queue](connect().channel()).get()
    assert message.headers["x-lost-deliveries"] == 2
    assert message.headers["x-delivery-count"] == 1
    message.reject()
    message.channel.flush()


def test_many_suspects_are_tried_one_after_the_other_without_pauses(
    make_project: Callable[..., Project],
) -> None:
    """Each trial waits for the broker several times; what comes during such a wait is worked on at once."""
    project = make_project()
    for number in range(200):
        project.task("late").apply_async((number,), headers={"x-lost-deliveries": 4})
    worker = project.start_worker().wait_ready()
    project.wait_for_effects(200, timeout=8)
    worker.wait_idle()
    assert project.repeated() == 0


def test_worker_that_is_busy_in_its_loop_keeps_its_connection(make_project: Callable[..., Project]) -> None:
    """A task in the pool `solo` takes longer than the server waits for a sign of life."""
    project = make_project(broker_heartbeat=1)
    worker = project.start_worker("-P", "solo").wait_ready()
    project.task("late_hold").delay(1, 6.0)
    project.task("late").delay(2)
    project.wait_for_effects(2)
    worker.wait_idle()
    assert sorted(project.effects()) == [1, 2]
    assert "was lost" not in worker.log


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
