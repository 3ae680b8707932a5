"""One subscription of a process for all results that it waits for.

The thread that waits reads the socket itself, so that no switch of threads delays its result; other waiting
threads sleep meanwhile and are woken by it, and one of them takes over reading when it leaves. Channels are
subscribed while somebody waits for them. When the connection breaks, it is made anew and all that is waited for
is looked up, as messages may have been missed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

logger = logging.getLogger(__name__)

_RECONNECT_PAUSE_SECONDS = 0.2
_FOLLOWER_CHECK_SECONDS = 1.0


class Waiter:
    """What one wait listens for, and what arrived for it. Used by one thread."""

    __slots__ = ("channels", "event", "messages", "to_look_up")

    def __init__(self) -> None:
        self.channels: set[str] = set()
        self.event = threading.Event()
        self.messages: deque[tuple[str, bytes]] = deque()
        """`(channel, payload)`."""
        self.to_look_up: deque[str] = deque()
        """Channels that are subscribed from now on: what was published before must be looked up."""


class Listener:
    """Subscribes to channels for many waiters.

    Args:
        connect: takes an unused redis-py connection out of its pool.
        release: gives a broken one back.
        is_failure: tells failures of the connection from other errors.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        release: Callable[[Any], Any],
        is_failure: Callable[[BaseException], bool],
    ) -> None:
        self._connect = connect
        self._release = release
        self._is_failure = is_failure
        self._lock = threading.RLock()  # guards the fields below and writing to the socket
        self._reading = threading.Lock()  # held by the thread that reads the socket
        self._connection: Any = None
        self._waiters: dict[str, list[Waiter]] = {}

    def add(self, waiter: Waiter, channels: Iterable[str]) -> None:
        """Listen to `channels`; they appear in `waiter.to_look_up` once they are subscribed."""
        with self._lock:
            new = []
            for channel in channels:
                waiter.channels.add(channel)
                others = self._waiters.setdefault(channel, [])
                if others:
                    waiter.to_look_up.append(channel)
                else:
                    new.append(channel)
                others.append(waiter)
            if new:
                self._send("SUBSCRIBE", new)

    def remove(self, waiter: Waiter, channels: Iterable[str]) -> None:
        """Stop listening."""
        with self._lock:
            unused = []
            for channel in channels:
                if channel not in waiter.channels:
                    continue
                waiter.channels.discard(channel)
                others = self._waiters.get(channel, [])
                if waiter in others:
                    others.remove(waiter)
                if not others:
                    self._waiters.pop(channel, None)
                    unused.append(channel)
            if unused:
                self._send("UNSUBSCRIBE", unused)

    def wait(self, waiter: Waiter, timeout: float | None) -> None:
        """Return when something arrived for `waiter`, or after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not waiter.messages and not waiter.to_look_up:
            left = _FOLLOWER_CHECK_SECONDS if end is None else end - time.monotonic()
            if left <= 0:
                return
            if self._reading.acquire(blocking=False):
                try:
                    self._read(waiter, end)
                finally:
                    self._reading.release()
                    self._wake_another(waiter)
                return
            waiter.event.wait(min(left, _FOLLOWER_CHECK_SECONDS))
            waiter.event.clear()

    def close(self) -> None:
        """Close the connection if nobody waits."""
        with self._lock:
            if not self._waiters:
                self._drop()

    # --- writing -------------------------------------------------------------------------------

    def _send(self, command: str, channels: list[str]) -> None:
        if self._connection is None:
            if command == "SUBSCRIBE":
                self._wake(channels)  # whoever reads next connects and subscribes to everything
            return
        try:
            self._connection.send_command(command, *channels, check_health=False)
        except Exception as exc:
            if not self._is_failure(exc):
                raise
            logger.info("the subscription to results broke (%s); connecting again", exc)
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.disconnect()
            finally:
                self._release(connection)

    def _wake(self, channels: Iterable[str]) -> None:
        for channel in channels:
            for waiter in self._waiters.get(channel, ()):
                waiter.event.set()

    def _wake_another(self, leaver: Waiter) -> None:
        with self._lock:
            for waiters in self._waiters.values():
                for waiter in waiters:
                    if waiter is not leaver:
                        waiter.event.set()
                        return

    # --- reading -------------------------------------------------------------------------------

    def _read(self, waiter: Waiter, end: float | None) -> None:
        """Read and distribute until something is there for `waiter`."""
        while not waiter.messages and not waiter.to_look_up:
            left = _FOLLOWER_CHECK_SECONDS if end is None else end - time.monotonic()
            if left <= 0:
                return
            try:
                connection = self._ready_connection()
                if connection.can_read(timeout=min(left, _FOLLOWER_CHECK_SECONDS)):
                    self._distribute(connection.read_response())
            except Exception as exc:
                if not self._is_failure(exc):
                    raise
                logger.info("the subscription to results broke (%s); connecting again", exc)
                with self._lock:
                    self._drop()
                waiter.event.wait(min(max(left, 0.0), _RECONNECT_PAUSE_SECONDS))
                waiter.event.clear()

    def _ready_connection(self) -> Any:
        connection = self._connection
        if connection is not None:
            return connection
        with self._lock:
            connection = self._connect()
            self._connection = connection
            if self._waiters:
                connection.send_command("SUBSCRIBE", *self._waiters, check_health=False)
            return connection

    def _distribute(self, response: Any) -> None:
        kind, channel = response[0], response[1]
        if kind == b"message":
            name = channel.decode()
            with self._lock:
                for waiter in self._waiters.get(name, ()):
                    waiter.messages.append((name, response[2]))
                    waiter.event.set()
        elif kind == b"subscribe":
            name = channel.decode()
            with self._lock:
                for waiter in self._waiters.get(name, ()):
                    waiter.to_look_up.append(name)
                    waiter.event.set()
