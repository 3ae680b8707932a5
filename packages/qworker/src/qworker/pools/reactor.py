"""A small loop of file descriptors and timers that runs alone, in a thread, or inside a kombu Hub."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any

from .contract import EventHub

Callback = Callable[[], None]


class Timer:
    """One call in the future."""

    __slots__ = ("_entry", "callback", "due")

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self.callback: Callback | None = callback
        self._entry: Any = None

    def cancel(self) -> None:
        self.callback = None
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def attach(self, hub: EventHub, run_due: Callback) -> None:
        self._entry = hub.timer.call_after(max(0.0, self.due - monotonic()), run_due)


class Reactor:
    """Watches descriptors, one callback each; a descriptor is watched for reading or for writing, not both.

    With a hub attached, everything is mirrored there and `run_once` is needed only where the hub does not
    turn: at shutdown, or in a program without one.
    """

    def __init__(self) -> None:
        self._callbacks: dict[int, tuple[Callback, bool]] = {}
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._calls: deque[Callback] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._hub: EventHub | None = None
        self.closed = False
        self.watch(self._wake_reader.fileno(), self._on_wake)

    def attach(self, hub: EventHub) -> None:
        """Mirror everything in this hub, from now on."""
        self._hub = hub
        for fd, (callback, writing) in self._callbacks.items():
            (hub.add_writer if writing else hub.add_reader)(fd, callback)
        for _, _, timer in self._timers:
            if timer.callback is not None:
                timer.attach(hub, self.run_due)

    def watch(self, fd: int, callback: Callback, writing: bool = False) -> None:
        self._callbacks[fd] = callback, writing
        self._selector.register(fd, selectors.EVENT_WRITE if writing else selectors.EVENT_READ, callback)
        if self._hub is not None:
            (self._hub.add_writer if writing else self._hub.add_reader)(fd, callback)

    def unwatch(self, fd: int) -> None:
        """Must come before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is None:
            return
        self._selector.unregister(fd)
        if self._hub is not None:
            self._hub.remove(fd)

    def call_later(self, delay_seconds: float, callback: Callback) -> Timer:
        timer = Timer(monotonic() + delay_seconds, callback)
        heappush(self._timers, (timer.due, next(self._numbers), timer))
        if self._hub is not None:
            timer.attach(self._hub, self.run_due)
        return timer

    def call_soon(self, callback: Callback) -> None:
        """Have the loop call this; safe from other threads and from signal handlers."""
        self._calls.append(callback)
        self.wake()

    def wake(self) -> None:
        try:
            self._wake_writer.send(b"\0")
        except OSError:  # full: it will wake up anyway; closed: nobody is there
            pass

    def run_once(self, timeout: float | None) -> None:
        """Handle what is ready, after waiting at most `timeout` seconds (None = until something is)."""
        while self._timers and self._timers[0][2].callback is None:
            heappop(self._timers)
        if self._timers:
            until_due = max(0.0, self._timers[0][0] - monotonic())
            timeout = until_due if timeout is None else min(timeout, until_due)
        for key, _ in self._selector.select(timeout):
            # An earlier callback of this round may have ended the watch.
            watched = self._callbacks.get(key.fd)
            if watched is not None and watched[0] is key.data:
                watched[0]()
        self.run_due()

    def run_due(self) -> None:
        """Call the timers whose time has come."""
        while self._timers and self._timers[0][0] <= monotonic():
            timer = heappop(self._timers)[2]
            callback = timer.callback
            if callback is not None:
                timer.callback = None
                callback()

    def close_in_child(self) -> None:
        """After a fork: give up the parent's descriptors without touching what the parent watches."""
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def close(self) -> None:
        """Give everything up; may be called again."""
        if self.closed:
            return
        self.closed = True
        for _, _, timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for fd in list(self._callbacks):
            self.unwatch(fd)
        self.close_in_child()

    def _on_wake(self) -> None:
        try:
            self._wake_reader.recv(4096)
        except BlockingIOError:
            pass
        for _ in range(len(self._calls)):
            self._calls.popleft()()
