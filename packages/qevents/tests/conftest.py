"""An in-memory broker with an exchange of its own, and an app reduced to what events need of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection
from kombu.clocks import LamportClock

from qevents import EventReceiver
from qevents.app import Events


def connect() -> Connection:
    return Connection("memory://", transport_options={"polling_interval": 0.01})


@pytest.fixture
def connection() -> Iterator[Connection]:
    with connect() as connection:
        yield connection


@pytest.fixture
def exchange() -> str:
    return f"ev-{uuid.uuid4()}"


@pytest.fixture
def make_receiver(connection: Connection, exchange: str) -> Callable[..., EventReceiver]:
    def make(handlers: Any = None, **options: Any) -> EventReceiver:
        return EventReceiver(connection, handlers, exchange=exchange, **options)

    return make


class SmallApp:
    """Settings, clock and a producer: what `Events` reads of an app."""

    def __init__(self, exchange: str) -> None:
        self.clock = LamportClock()
        self.conf = SimpleNamespace(
            event_queue_prefix="prefix",
            event_exchange=exchange,
            event_serializer="json",
            event_queue_ttl=5.0,
            event_queue_expires=60.0,
            event_queue_exclusive=True,
            event_queue_durable=False,
        )
        self.broadcasts: list[tuple[str, dict[str, Any]]] = []
        self.control = SimpleNamespace(
            broadcast=lambda command, **options: self.broadcasts.append((command, options))
        )
        self.events = Events(self)

    @contextmanager
    def producer_or_acquire(self, producer: Any = None) -> Iterator[Any]:
        with connect() as connection, connection.Producer() as own:
            yield producer or own


@pytest.fixture
def app(exchange: str) -> SmallApp:
    return SmallApp(exchange)
