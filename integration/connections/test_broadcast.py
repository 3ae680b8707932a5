"""A task sent to a Broadcast queue by a client that never met the workers runs on all of them (4ROU-46, 4X-16)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from qcore import App
from qcore.queues import Broadcast


@pytest.fixture(params=["redis", "stock redis", "amqp", "embedded"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return f"sqlite:///{tmp_path}/broker.db"
    url: str = request.getfixturevalue("amqp_url" if request.param == "amqp" else "redis_url")
    return url.replace("redis://", "kombu.transport.redis.Transport://") if "stock" in request.param else url


@pytest.fixture
def name(broker_url: str) -> Iterator[str]:
    """Name of an exchange, and of a default queue, that go away with the test."""
    name = f"q-test-broadcast-{uuid4().hex[:8]}"
    yield name
    with (
        App("cleaner", broker=broker_url, set_as_current=False) as app,
        app.connection_for_write() as connection,
    ):
        channel = connection.channel()
        channel.queue_delete(f"{name}-default")
        channel.exchange_delete(name)


def make(broker_url: str, name: str) -> App:
    return App(
        "t",
        broker=broker_url,
        set_as_current=False,
        task_queues=[Broadcast(name)],
        task_default_queue=f"{name}-default",
    )


@pytest.mark.parametrize("option", ["queue", "exchange"])
def test_every_worker_gets_it(broker_url: str, name: str, option: str) -> None:
    got: list[tuple[int, str]] = []
    with ExitStack() as stack:
        connections: list[Any] = []
        for number in range(2):
            app = stack.enter_context(make(broker_url, name))
            connection = stack.enter_context(app.connection_for_read())
            consumer = app.amqp.TaskConsumer(
                connection.default_channel,
                no_ack=True,
                on_message=lambda message, number=number: got.append((number, message.headers["task"])),
            )
            consumer.consume()
            stack.callback(consumer.cancel)
            connections.append(connection)
        drain(connections, seconds=0.3, until=lambda: False)  # on Redis the subscription happens here
        client = stack.enter_context(make(broker_url, name))
        client.send_task("t.add", (1,), ignore_result=True, **{option: name})
        drain(connections, seconds=10, until=lambda: len(got) >= 2)
    assert sorted(got) == [(0, "t.add"), (1, "t.add")]


def drain(connections: list[Any], seconds: float, until: Any) -> None:
    """Receive on all connections until the condition holds or the time is over."""
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        for connection in connections:
            try:
                connection.drain_events(timeout=0.05)
            except TimeoutError:
                pass
