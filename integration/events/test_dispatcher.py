"""The event dispatcher and the receiver while the broker is cut off."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu import Connection

from qcore.events import EventDispatcher
from qevents import EventReceiver

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from proxy import Proxy

LONG_SECONDS = 30.0


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


@pytest.fixture(params=["redis_url", "amqp_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    server = urlsplit(url)
    with Proxy(server.hostname or "127.0.0.1", server.port or 6379) as proxy:
        yield proxy


def through(url: str, proxy: Proxy) -> Connection:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    netloc = f"{login}@127.0.0.1:{proxy.port}" if login else f"127.0.0.1:{proxy.port}"
    return Connection(parts._replace(netloc=netloc).geturl())


class Capture:
    """A receiver in a thread."""

    def __init__(self, connection: Connection, exchange: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self.receiver = EventReceiver(
            connection,
            {"*": self.events.append},
            exchange=exchange,
            wakeup=lambda connection, channel: self.ready.set(),
        )
        self.thread = threading.Thread(target=self.receiver.capture)
        self.thread.start()
        assert self.ready.wait(LONG_SECONDS)

    def stop(self) -> None:
        self.receiver.should_stop = True
        self.thread.join(LONG_SECONDS)
        assert not self.thread.is_alive()


def test_events_wait_while_the_dispatcher_is_cut_off(url: str, proxy: Proxy) -> None:
    exchange = f"ev-{uuid.uuid4()}"
    capture = Capture(Connection(url), exchange)
    try:
        with through(url, proxy) as connection:
            dispatcher = EventDispatcher(connection, "q@h", exchange=exchange, buffer_group=["task"])
            send_until_heard(dispatcher, capture)
            proxy.refuse()
            started = time.monotonic()
            for number in range(3):
                dispatcher.send("worker-x", n=number)
                dispatcher.send("task-started", uuid=str(number))
                dispatcher.flush()
            assert time.monotonic() - started < LONG_SECONDS / 2, "a sender is not kept waiting"
            proxy.accept()
            wait_until(lambda: dispatcher.flush() or not dispatcher.buffered)
            wait_until(lambda: len({e.get("uuid") for e in capture.events if "uuid" in e}) == 3)
            assert {e["n"] for e in capture.events if e["type"] == "worker-x"} >= {1, 2}
            dispatcher.close()
    finally:
        capture.stop()


def send_until_heard(dispatcher: EventDispatcher, capture: Capture) -> None:
    def heard() -> bool:
        dispatcher.send("worker-hello")
        return any(event["type"] == "worker-hello" for event in capture.events)

    wait_until(heard)


def test_the_receiver_connects_again(url: str, proxy: Proxy) -> None:
    exchange = f"ev-{uuid.uuid4()}"
    capture = Capture(through(url, proxy), exchange)
    try:
        with Connection(url) as connection:
            dispatcher = EventDispatcher(connection, "q@h", exchange=exchange)
            send_until_heard(dispatcher, capture)
            capture.ready.clear()
            proxy.cut()
            assert capture.ready.wait(LONG_SECONDS), "it wakes the workers again"
            capture.events.clear()
            send_until_heard(dispatcher, capture)
            dispatcher.close()
    finally:
        capture.stop()
