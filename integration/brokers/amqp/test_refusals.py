"""Priorities on RabbitMQ count in queues that were declared for them; elsewhere that is said once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from qbrokers.testing.untyped import kombu
from qcore import App

Make = Callable[..., App]


@pytest.fixture
def make(amqp_url: str) -> Iterator[Make]:
    apps: list[App] = []

    def make(**settings: Any) -> App:
        name = f"refusal-{uuid4().hex[:12]}"
        app = App("rabbit", broker=amqp_url, set_as_current=False, task_default_queue=name, **settings)
        app.task(lambda: None, name="rabbit.nothing", ignore_result=True)
        apps.append(app)
        return app

    yield make
    for app in apps:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_delete(app.conf.task_default_queue)
        app.close()


def priorities(app: App) -> list[int]:
    """Take the messages out of the default queue."""
    with app.connection_for_read() as connection:
        queue = app.amqp.default_queue(connection.default_channel)
        messages = iter(lambda: queue.get(no_ack=True), None)
        return [message.properties["priority"] for message in messages]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_priority_in_a_queue_without_them_is_sent_and_told_once(
    make: Make, caplog: pytest.LogCaptureFixture, queue_type: str
) -> None:
    app = make(task_default_queue_type=queue_type)
    for priority in (0, 5, 6):
        app.tasks["rabbit.nothing"].apply_async(priority=priority)

    assert sorted(priorities(app)) == [0, 5, 6]
    told = [record.getMessage() for record in caplog.records if record.name == "qcore.refusal"]
    assert len(told) == 1
    assert "declared without x-max-priority" in told[0]


def test_a_priority_in_a_queue_declared_for_them_counts(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    app = make(task_queue_max_priority=9)
    for priority in (0, 5, 9, 1):
        app.tasks["rabbit.nothing"].apply_async(priority=priority)

    assert priorities(app) == [9, 5, 1, 0]
    assert "qcore.refusal" not in [record.name for record in caplog.records]


def test_headers_exchanges_are_let_through(make: Make) -> None:
    app = make()
    exchange = kombu.Exchange(f"refusal-{uuid4().hex[:12]}", "headers", durable=False, auto_delete=True)
    with app.connection_for_write() as connection:
        inbox = kombu.Queue("", exchange, binding_arguments={"task": "rabbit.nothing"}, exclusive=True)
        bound = inbox(connection.default_channel)
        bound.declare()
        app.tasks["rabbit.nothing"].apply_async(exchange=exchange, routing_key="")

        assert bound.get(no_ack=True).headers["task"] == "rabbit.nothing"
