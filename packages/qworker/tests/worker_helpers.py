"""Shared by the worker's tests: fresh in-memory apps, raw messages, waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from qcore import App

DEADLINE_SECONDS = 10.0


def make_app(**settings: Any) -> App:
    """An app whose broker and queue nobody else uses."""
    settings.setdefault("task_default_queue", f"test-{uuid4().hex}")
    settings.setdefault("control_exchange", f"control-{uuid4().hex}")
    # kombu's in-memory broker otherwise looks for a reply once in a second.
    settings.setdefault("broker_transport_options", {"polling_interval": 0.005})
    return App(
        "tests", broker="memory://localhost", backend="cache+memory://", set_as_current=False, **settings
    )


def wait_until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """What `condition()` returns once that is true; fails after a deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come true in {DEADLINE_SECONDS} s")


def publish_raw(app: App, body: Any, headers: dict[str, Any] | None = None, **options: Any) -> None:
    """Put any message on the default queue."""
    with app.connection_for_write() as connection:
        options.setdefault("serializer", "json")
        connection.Producer().publish(
            body, exchange="", routing_key=app.conf.task_default_queue, headers=headers or {}, **options
        )


def queue_size(app: App) -> int:
    """Messages that wait in the default queue."""
    with app.connection_for_read() as connection:
        channel = connection.channel()
        return int(channel._size(app.conf.task_default_queue))


@contextmanager
def connected(signal: Any, receiver: Callable[..., Any]) -> Iterator[None]:
    """Connect a receiver for the time of the block."""
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)
