"""A sleep that another thread or a signal handler can end.

`threading.Event.set` may deadlock when a signal handler calls it while the main thread waits; writing a byte
to a socket cannot.
"""

from __future__ import annotations

import select
import socket
import time

_LONGEST_SLEEP_SECONDS = 86_400.0


class Wakeup:
    """Once `set`, every `wait` returns at once. One thread may wait at a time."""

    def __init__(self) -> None:
        self._is_set = False
        self._writer: socket.socket | None = None

    def set(self) -> None:
        """End the wait, the present one and those to come; safe in a signal handler."""
        self._is_set = True
        writer = self._writer
        if writer is not None:
            try:
                writer.send(b"!")
            except OSError:
                pass  # full or closed: whoever waited is awake anyway

    @property
    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds`, or until `set`; returns whether it is set."""
        deadline = time.monotonic() + min(seconds, _LONGEST_SLEEP_SECONDS)
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        with reader, writer:
            self._writer = writer  # from here on a `set` leaves a byte, so none can slip in before select
            try:
                while not self._is_set and (left := deadline - time.monotonic()) > 0:
                    select.select([reader], [], [], left)
            finally:
                self._writer = None
        return self._is_set
