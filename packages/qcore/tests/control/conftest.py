"""An app reduced to what remote control needs of it, and nodes that serve commands in threads."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection
from kombu.clocks import LamportClock

from qcore.control import Control

DEADLINE_SECONDS = 20.0


class SmallApp:
    """Connection, settings, clock: everything `Control` reads of an app."""

    def __init__(self, url: str = "memory://", **settings: Any) -> None:
        self.url = url
        self.clock = LamportClock()
        self.conf = SimpleNamespace(
            control_exchange=f"ctl-{uuid.uuid4()}",
            control_queue_ttl=300.0,
            control_queue_expires=10.0,
            control_queue_durable=False,
            control_queue_exclusive=True,
            accept_content=["json"],
            task_serializer="json",
        )
        vars(self.conf).update(settings)
        self.producer_pool = None
        self.amqp = SimpleNamespace(queues={})
        self.control = Control(self)

    @contextmanager
    def connection_or_acquire(self, connection: Connection | None = None) -> Iterator[Connection]:
        if connection is not None:
            yield connection
            return
        with self.connect() as own:
            yield own

    def connect(self) -> Connection:
        return Connection(self.url, transport_options={"polling_interval": 0.01})


class NodeThread:
    """A worker's end of the mailbox: serves `handlers` in a thread until `stop`."""

    def __init__(self, app: SmallApp, hostname: str, handlers: dict[str, Callable[..., Any]]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.messages: list[Any] = []
        self._stop = threading.Event()
        self._connection = app.connect()
        self._node = app.control.mailbox(self._connection).Node(
            hostname, state=self, handlers=handlers, channel=self._connection.channel()
        )
        self._consumer = self._node.listen(callback=self._on_request)
        self._thread = threading.Thread(target=self._run, name=hostname)
        self._thread.start()

    def _on_request(self, body: dict[str, Any], message: Any) -> None:
        self.requests.append(dict(body))
        self.messages.append(message)
        self._node.handle_message(body, message)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._connection.drain_events(timeout=0.05)
            except TimeoutError:
                pass

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_SECONDS)
        self._connection.close()


@pytest.fixture
def app() -> SmallApp:
    return SmallApp()


@pytest.fixture
def serve(app: SmallApp) -> Iterator[Callable[..., NodeThread]]:
    """Start a node that answers `ping`, `echo` and `fail`, and whatever else is given."""
    nodes: list[NodeThread] = []

    def start(hostname: str, **handlers: Callable[..., Any]) -> NodeThread:
        def fail(state: Any, **_: Any) -> None:
            raise ValueError("no")

        known: dict[str, Callable[..., Any]] = {
            "ping": lambda state: {"ok": "pong"},
            "echo": lambda state, **arguments: {"ok": arguments},
            "fail": fail,
        }
        node = NodeThread(app, hostname, known | handlers)
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        node.stop()
