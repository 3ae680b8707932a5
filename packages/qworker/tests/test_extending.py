"""Extending the worker with boot steps, as the guide shows (acceptance list 3, EX-10 to EX-21)."""

from __future__ import annotations

import logging
import os
import threading
from time import time
from typing import Any

import kombu
import pytest
from worker_helpers import make_app, publish_raw, wait_until

from qcore import App
from qworker import bootsteps
from qworker.testing import start_worker


@pytest.fixture
def app() -> App:
    return make_app()


def test_consumer_step_takes_messages_of_its_own(app: App) -> None:
    queue = kombu.Queue("custom", kombu.Exchange("custom"), "routing_key")
    seen: list[Any] = []

    class MyConsumerStep(bootsteps.ConsumerStep):
        def get_consumers(self, channel: Any) -> list[Any]:
            return [kombu.Consumer(channel, queues=[queue], callbacks=[self.handle_message], accept=["json"])]

        def handle_message(self, body: Any, message: Any) -> None:
            seen.append(body)
            message.ack()

    app.steps["consumer"].add(MyConsumerStep)
    with start_worker(app):
        with app.producer_or_acquire() as producer:
            producer.publish(
                {"hello": "world!"}, serializer="json", exchange=queue.exchange, routing_key="routing_key",
                declare=[queue], retry=True,
            )  # fmt: skip
        wait_until(lambda: seen, "the message")
    assert seen == [{"hello": "world!"}]


def test_raw_messages_are_not_decoded(app: App) -> None:
    queue = kombu.Queue("raw", kombu.Exchange("raw"), "raw")
    seen: list[Any] = []

    class RawStep(bootsteps.ConsumerStep):
        def get_consumers(self, channel: Any) -> list[Any]:
            return [kombu.Consumer(channel, queues=[queue], on_message=self.on_message)]

        def on_message(self, message: Any) -> None:
            seen.append((len(message.body), message.decode()))
            message.ack()

    app.steps["consumer"].add(RawStep)
    with start_worker(app):
        with app.producer_or_acquire() as producer:
            producer.publish([1], exchange=queue.exchange, routing_key="raw", declare=[queue])
        wait_until(lambda: seen, "the message")
    assert seen == [(3, [1])]


def test_worker_step_is_made_started_and_stopped_once(app: App) -> None:
    calls: list[str] = []

    class ExampleWorkerStep(bootsteps.StartStopStep):
        requires = {"qworker.components:Pool"}

        def __init__(self, worker: Any, **kwargs: Any) -> None:
            calls.append(f"init {kwargs['concurrency']} {worker.pool is None}")

        def create(self, worker: Any) -> Any:
            return self

        def start(self, worker: Any) -> None:
            calls.append("start")

        def stop(self, worker: Any) -> None:
            calls.append("stop")

    app.steps["worker"].add(ExampleWorkerStep)
    with start_worker(app, concurrency=1):
        pass
    assert calls == ["init 1 True", "start", "stop"]


def test_system_exit_in_a_timer_stops_the_worker(app: App) -> None:
    release = threading.Event()

    class DeadlockDetection(bootsteps.StartStopStep):
        requires = {"qworker.components:Timer"}

        def __init__(self, worker: Any, deadlock_timeout: float = 0.1) -> None:
            self.timeout = deadlock_timeout
            self.tref: Any = None

        def start(self, worker: Any) -> None:
            self.tref = worker.timer.call_repeatedly(0.05, self.detect, (worker,), priority=10)

        def stop(self, worker: Any) -> None:
            self.tref.cancel()

        def detect(self, worker: Any) -> None:
            for request in worker.active_requests:
                if request.time_start and time() - request.time_start > self.timeout:
                    release.set()
                    raise SystemExit

    @app.task
    def stuck() -> None:
        release.wait(10)

    app.steps["worker"].add(DeadlockDetection)
    with start_worker(app, pool="threads") as worker:
        stuck.delay()
        assert worker.thread is not None
        worker.thread.join(10)
        assert not worker.thread.is_alive()


def test_steps_run_in_the_documented_order(app: App, caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []

    class InfoStep(bootsteps.Step):
        def __init__(self, parent: Any, **kwargs: Any) -> None:
            lines.append(f"{parent!r} is in init")

        def start(self, parent: Any) -> None:
            lines.append(f"{parent!r} is starting")

        def stop(self, parent: Any) -> None:
            lines.append(f"{parent!r} is stopping")

        def shutdown(self, parent: Any) -> None:
            lines.append(f"{parent!r} is shutting down")

    app.steps["worker"].add(InfoStep)
    app.steps["consumer"].add(InfoStep)
    with caplog.at_level(logging.DEBUG), start_worker(app, hostname="w@example.com"):
        pass
    assert lines == [
        "<Worker: w@example.com (initializing)> is in init",
        "<Consumer: w@example.com (initializing)> is in init",
        "<Worker: w@example.com (running)> is starting",
        "<Consumer: w@example.com (running)> is starting",
        "<Consumer: w@example.com (closing)> is stopping",
        "<Worker: w@example.com (closing)> is stopping",
        "<Consumer: w@example.com (terminating)> is shutting down",
    ]
    text = caplog.text
    for line in (
        "| Worker: Preparing bootsteps.",
        "| Worker: Building graph...",
        "| Worker: New boot order: {",
        "| Consumer: New boot order: {",
        "| Worker: Starting Hub",
        "| Worker: Starting Pool",
        "^-- substep ok",
        "| Consumer: Starting Connection",
        "Connected to memory://localhost",
        "| Consumer: Starting Tasks",
        "basic.qos: prefetch_count->4",
        "| Consumer: Starting event loop",
        "w@example.com ready.",
    ):
        assert line in text
    assert "Starting Timer" not in text
    assert text.index("| Consumer: New boot order") < text.index("| Worker: Starting Hub")


def test_option_reaches_the_steps(app: App) -> None:
    seen: list[Any] = []

    class MyBootstep(bootsteps.Step):
        def __init__(self, parent: Any, enable_my_option: bool = False, **options: Any) -> None:
            super().__init__(parent, **options)
            seen.append((type(parent).__name__, enable_my_option))

    app.steps["worker"].add(MyBootstep)
    app.steps["consumer"].add(MyBootstep)
    with start_worker(app, enable_my_option=True):
        pass
    assert sorted(seen) == [("Consumer", True), ("ThreadWorker", True)]


def test_consumer_step_finds_every_documented_attribute(app: App) -> None:
    problems: list[str] = []

    @app.task(name="t.add")
    def add() -> None: ...

    class Probe(bootsteps.StartStopStep):
        requires = {
            "qworker.consumer.connection:Connection",
            "qworker.consumer.events:Events",
            "qworker.consumer.heart:Heart",
            "qworker.consumer.tasks:Tasks",
            "qworker.components:Hub",
        }

        def start(self, c: Any) -> None:
            for name in (
                "app", "controller", "hostname", "blueprint", "connection", "event_dispatcher", "pool", "timer",
                "heart", "task_consumer", "strategies", "task_buckets", "qos", "hub",
            ):  # fmt: skip
                if getattr(c, name, None) is None:
                    problems.append(name)
            problems.extend(name for name in c.app.tasks if name not in c.strategies)
            assert c.task_buckets["no.such.task"] is None
            c.qos.increment_eventually(1)
            c.qos.decrement_eventually(1)
            c.reset_rate_limits()
            c.add_task_queue("extra")
            c.cancel_task_queue("extra")

    app.steps["consumer"].add(Probe)
    with start_worker(app, without_heartbeat=False):
        pass
    assert problems == []


def test_hub_and_timer_call_back(app: App) -> None:
    seen: list[Any] = []

    class HubStep(bootsteps.StartStopStep):
        requires = {"qworker.components:Hub", "qworker.components:Timer"}

        def start(self, worker: Any) -> None:
            self.r, self.w = os.pipe()
            worker.hub.add_reader(self.r, seen.append, "never called")
            worker.hub.add_reader(self.r, self.on_readable, "arg")
            worker.timer.call_after(0.05, os.write, (self.w, b"x"))
            self.t = worker.timer.call_repeatedly(0.05, seen.append, ("tick",), priority=0)

        def on_readable(self, arg: str) -> None:
            seen.append((arg, os.read(self.r, 1)))

        def stop(self, worker: Any) -> None:
            worker.hub.remove(self.r)
            self.t.cancel()
            os.close(self.r)
            os.close(self.w)

    app.steps["worker"].add(HubStep)
    with start_worker(app):
        wait_until(lambda: ("arg", b"x") in seen and seen.count("tick") > 2, "the callbacks")
    assert "never called" not in seen


def test_own_bucket_limits_a_task_type(app: App) -> None:
    class Twice:
        """Lets two through."""

        left = 2

        def consume(self, tokens: float = 1) -> bool:
            self.left -= 1
            return self.left >= 0

        def expected_time(self, tokens: float = 1) -> float:
            return 600.0

    @app.task(name="t.seven")
    def seven() -> int:
        return 7

    class BucketStep(bootsteps.StartStopStep):
        requires = {"qworker.consumer.tasks:Tasks"}

        def start(self, c: Any) -> None:
            c.task_buckets["t.seven"] = Twice()

    app.steps["consumer"].add(BucketStep)
    with start_worker(app) as worker:
        results = [seven.delay() for _ in range(3)]
        assert [result.get(timeout=10) for result in results[:2]] == [7, 7]
        wait_until(lambda: worker.state.scheduled, "the held request")


def test_cluster_size_sets_the_rate_limit(app: App) -> None:
    @app.task(name="t.add")
    def add() -> None: ...

    class RatelimitStep(bootsteps.StartStopStep):
        requires = {"qworker.consumer.gossip:Gossip"}

        def start(self, c: Any) -> None:
            self.c = c
            c.gossip.on.node_join.add(self.on_cluster_size_change)
            c.gossip.on.node_leave.add(self.on_cluster_size_change)

        def on_cluster_size_change(self, worker: Any) -> None:
            others = len(list(self.c.gossip.state.alive_workers()))
            self.c.app.tasks["t.add"].rate_limit = 1.0 / (others + 1)
            self.c.reset_rate_limits()

    app.steps["consumer"].add(RatelimitStep)
    options: dict[str, Any] = {"without_gossip": False, "without_heartbeat": False, "heartbeat_interval": 0.2}
    with start_worker(app, hostname="a@x", **options):
        with start_worker(app, hostname="b@x", **options):
            wait_until(lambda: app.tasks["t.add"].rate_limit == 0.5, "the halved rate limit")
        wait_until(lambda: app.tasks["t.add"].rate_limit == 1.0, "the full rate limit")


def test_handler_of_every_message_is_called(app: App) -> None:
    seen: list[Any] = []

    class ListenStep(bootsteps.StartStopStep):
        requires = {"qworker.consumer.connection:Connection"}

        def start(self, c: Any) -> None:
            c.on_task_message.add(lambda message: seen.append(message.headers.get("task")))

    app.steps["consumer"].add(ListenStep)
    with start_worker(app):
        publish_raw(app, [[], {}, {}], {"task": "t.nothing", "id": "x"})
        wait_until(lambda: seen == ["t.nothing"], "the call")
