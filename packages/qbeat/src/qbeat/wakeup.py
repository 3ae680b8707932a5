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
    """Once `set`, every `wait` returns at once."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._is_set = False

    def set(self) -> None:
        """End all waits, the present ones and those to come; safe in a signal handler."""
        self._is_set = True
        try:
            self._writer.send(b"!")
        except OSError:
            pass  # full or closed: whoever waits is awake anyway

    @property
    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds`, or until `set`; returns whether it is set."""
        deadline = time.monotonic() + min(seconds, _LONGEST_SLEEP_SECONDS)
        while not self._is_set:
            left = deadline - time.monotonic()
            if left <= 0 or self._reader.fileno() < 0:
                break
            select.select([self._reader], [], [], left)
        return self._is_set

    def close(self) -> None:
        """Let go of the sockets."""
        self._reader.close()
        self._writer.close()
