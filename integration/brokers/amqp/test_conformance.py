"""The AMQP transport and the suite that every transport runs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from qbrokers.testing import Target, TransportConformance
from qbrokers.testing.untyped import kombu

LACKS = frozenset({"delivery count", "release", "prefetch change", "unknown queue", "purge delayed"})


def declared(channel: Any, **arguments: Any) -> Iterator[Any]:
    name = f"conformance-{uuid.uuid4().hex[:12]}"
    queue = kombu.Queue(name, kombu.Exchange(name, type="direct"), name, **arguments)(channel)
    queue.declare()
    client = channel.connection.client
    yield queue
    with client.clone(transport=client.transport_cls) as connection:
        connection.default_channel.queue_delete(name)
        connection.default_channel.exchange_delete(name)


class TestClassicQueues(TransportConformance):
    """Priorities have to be asked for when a queue is made."""

    @pytest.fixture
    def target(self, amqp_url: str) -> Target:
        return Target(amqp_url, "qbrokers.amqp:Transport", lacks=LACKS)

    @pytest.fixture
    def queue(self, channel: Any) -> Iterator[Any]:
        yield from declared(channel, max_priority=9)


class TestQuorumQueues(TransportConformance):
    """They count deliveries, and have no priorities."""

    @pytest.fixture
    def target(self, amqp_url: str) -> Target:
        return Target(
            amqp_url,
            "qbrokers.amqp:Transport",
            lacks=LACKS - {"delivery count"} | {"priority", "delete if empty"},
        )

    @pytest.fixture
    def queue(self, channel: Any) -> Iterator[Any]:
        yield from declared(channel, queue_arguments={"x-queue-type": "quorum"})
