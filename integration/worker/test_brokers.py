"""The worker's own traffic on real brokers: neighbours, events, remote control, connections that break."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest

from qcore import App
from qworker.testing import ThreadWorker, start_worker

DEADLINE_SECONDS = 15.0


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true in {DEADLINE_SECONDS} s")


@pytest.fixture(params=["redis", "amqp"])
def app(request: pytest.FixtureRequest) -> Iterator[App]:
    name = f"worker-{uuid4().hex[:12]}"
    url = request.getfixturevalue(f"{request.param}_url")
    with App("brokers", broker=url, backend="cache+memory://", set_as_current=False) as app:
        app.conf.update(
            task_default_queue=name,
            control_exchange=name,
            event_exchange=f"{name}-ev",
            event_queue_prefix=f"{name}-ev",
        )

        @app.task(name="b.add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        yield app
        with app.connection_for_write() as connection:
            channel = connection.channel()
            channel.queue_delete(name)
            for exchange in (name, f"{name}-ev", f"{name}.pidbox", f"reply.{name}.pidbox"):
                channel.exchange_delete(exchange)


@pytest.fixture
def start(app: App) -> Iterator[Callable[..., ThreadWorker]]:
    with ExitStack() as stack:

        def start(**options: Any) -> ThreadWorker:
            options = {"pool": "threads", "concurrency": 2, **options}
            return stack.enter_context(start_worker(app, **options))

        yield start


def test_tasks_run_at_once_and_on_time(app: App, start: Callable[..., ThreadWorker]) -> None:
    start()
    assert app.send_task("b.add", (1, 2)).get(timeout=10) == 3
    begun = time.monotonic()
    assert app.send_task("b.add", (1, 2), countdown=1.0).get(timeout=10) == 3
    assert 0.9 <= time.monotonic() - begun < 4


def test_neighbours_exchange_revocations_and_know_each_other(
    app: App, start: Callable[..., ThreadWorker]
) -> None:
    options = {"without_mingle": False, "without_gossip": False, "without_heartbeat": False}
    first = start(hostname="a@x", **options)
    first.state.revoked.add("an-id")
    second = start(hostname="b@x", **options)
    assert "an-id" in second.state.revoked
    for worker, other in ((first, "b@x"), (second, "a@x")):
        assert worker.consumer is not None
        gossip = worker.consumer.gossip
        wait_until(lambda g=gossip, o=other: o in {n.hostname for n in g.state.alive_workers()}, other)
    replies = app.control.ping(timeout=2)
    assert sorted(name for reply in replies for name in reply) == ["a@x", "b@x"]


def test_elected_worker_runs_the_task(app: App, start: Callable[..., ThreadWorker]) -> None:
    ran: list[int] = []

    @app.task(name="b.mark", shared=False)
    def mark() -> None:
        ran.append(1)

    options = {"without_gossip": False, "without_heartbeat": False}
    workers = [start(hostname=f"{name}@x", **options) for name in "ab"]
    for worker in workers:
        assert worker.consumer is not None
        gossip = worker.consumer.gossip
        wait_until(lambda g=gossip: list(g.state.alive_workers()), "the neighbour")
    signature = dict(app.signature("b.mark"))
    app.control.election("an-election", "task", signature)
    wait_until(lambda: ran, "the elected run")
    time.sleep(0.5)  # a second run would come now
    assert ran == [1]


def test_rate_limited_and_held_messages_are_handed_back(app: App, start: Callable[..., ThreadWorker]) -> None:
    @app.task(name="b.slow", rate_limit="1/m", shared=False)
    def slow(n: int) -> int:
        return n

    with start_worker(app, pool="threads", concurrency=1) as first:
        results = [slow.delay(n) for n in range(3)]
        wait_until(lambda: len(first.state.scheduled) == 2, "two held requests")
    slow.rate_limit = None
    start()
    assert [result.get(timeout=10) for result in results] == [0, 1, 2]


def test_broken_connection_is_repaired(app: App, start: Callable[..., ThreadWorker]) -> None:
    release = threading.Event()
    runs: list[int] = []

    @app.task(name="b.wait", acks_late=True, shared=False)
    def wait() -> str:
        runs.append(1)
        release.wait(10)
        return "done"

    worker = start()
    result = wait.delay()
    wait_until(lambda: worker.active_requests, "the running task")
    assert worker.consumer is not None
    generation = worker.consumer.generation

    def break_it() -> None:
        raise worker.consumer.connection.connection_errors[0]("broken by the test")

    worker.hub.call_soon(break_it)
    wait_until(
        lambda: worker.consumer.generation > generation and worker.consumer.consuming, "the reconnection"
    )
    assert app.send_task("b.add", (1, 2)).get(timeout=10) == 3
    release.set()
    assert result.get(timeout=10) == "done"
    wait_until(lambda: not worker.state.by_tag, "the end of the task")
    assert app.control.ping(timeout=2)
    assert runs == [1]
