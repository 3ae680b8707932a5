"""Listening: the queues that are subscribed to fanout channels, on a connection that claims messages, too."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from qbrokers.redis.wire import CONNECTION_ERRORS, Wire, error_of, pack

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """What listening needs of a channel."""

    def broadcast(self, queue: str, raw: bytes) -> None:
        """A message of a fanout exchange arrived."""


class Line(Protocol):
    """What listening needs of the intake whose connection it shares."""

    wire: Wire

    def finish(self, timeout_seconds: float, done: Callable[[], bool]) -> bool:
        """Read until a condition holds; returns whether it does."""

    def lose(self) -> None:
        """The connection is gone."""


class Listeners:
    """Who listens to which channels.

    Args:
        line: The connection.
        timeout_seconds: How long the reply to a subscription may take.
    """

    def __init__(self, line: Line, timeout_seconds: float) -> None:
        self._line = line
        self._timeout = timeout_seconds
        self._listeners: dict[bytes, list[tuple[Listener, str]]] = {}
        self._subscribed: set[bytes] = set()
        self._refusal: Exception | None = None

    @property
    def active(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def add(self, listener: Listener, queue: str, pattern: str) -> None:
        """Subscribe a queue to channels; when this returns, the next message to one of them is received.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost.
            redis.exceptions.ResponseError: The server refused.
        """
        name = pattern.encode()
        listeners = self._listeners.setdefault(name, [])
        if (listener, queue) not in listeners:
            listeners.append((listener, queue))
        self._refusal = None
        try:
            self._subscribe(name)
        except CONNECTION_ERRORS:
            self._line.lose()
            raise
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            self.remove(listener, queue)
            raise refusal

    def _subscribe(self, name: bytes) -> None:
        wire = self._line.wire
        if wire.connected:
            wire.send(pack((b"PSUBSCRIBE", name)))
        else:
            wire.connect()
        if not self._line.finish(
            self._timeout, lambda: name in self._subscribed or self._refusal is not None
        ):
            raise error_of(
                f"CLUSTERDOWN no reply to a subscription for {self._timeout:g} s; connection given up"
            )

    def remove(self, listener: Listener, queue: str) -> None:
        """End a subscription; a connection that turns out to be lost has ended it already."""
        for pattern, listeners in tuple(self._listeners.items()):
            if (listener, queue) in listeners:
                listeners.remove((listener, queue))
                if not listeners:
                    del self._listeners[pattern]
                    self._unsubscribe(pattern)

    def _unsubscribe(self, pattern: bytes) -> None:
        if self._line.wire.connected:
            try:
                self._line.wire.send(pack((b"PUNSUBSCRIBE", pattern)))
            except CONNECTION_ERRORS:
                self._line.lose()

    def resume(self) -> None:
        """Subscribe all of them on a connection that is new.

        Raises:
            redis.exceptions.ConnectionError: It is lost.
        """
        self._subscribed.clear()
        if self._listeners:
            self._line.wire.send(pack((b"PSUBSCRIBE", *self._listeners)))

    # -- arriving

    def pushed(self, push: Any) -> None:
        """The server has sent a message, or confirmed a subscription or its end."""
        kind = push[0]
        if kind == b"pmessage":
            for listener, queue in tuple(self._listeners.get(push[1], ())):
                listener.broadcast(queue, push[3])
        elif kind == b"psubscribe":
            self._subscribed.add(push[1])
        elif kind == b"punsubscribe":
            self._subscribed.discard(push[1])

    def refused(self, error: Exception) -> None:
        """A subscription has no reply when all is well, and an error when it is not."""
        if isinstance(error, CONNECTION_ERRORS):
            raise error
        logger.error("the server refused a subscription: %s", error)
        self._refusal = error


def refuses_subscription(reply: Any) -> bool:
    """Whether a reply is the error of a subscription, which no command waits for."""
    return isinstance(reply, Exception) and ("psubscribe" in str(reply) or "channels used" in str(reply))
