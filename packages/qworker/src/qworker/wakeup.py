"""Wakes the worker's loop from signal handlers and other threads."""

from __future__ import annotations

import os
from typing import Any


class Wakeup:
    """A pipe in the hub: `set()` makes the current or next poll return at once."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._hub: Any = None

    def register(self, hub: Any) -> None:
        """Let `hub` poll it."""
        self._hub = hub
        hub.add_reader(self._reader, self._drain)

    def set(self) -> None:
        """Wake the loop; safe in signal handlers."""
        try:
            os.write(self._writer, b"\0")
        except (BlockingIOError, OSError):
            pass  # full: it wakes up anyway; closed: the loop has ended

    def _drain(self) -> None:
        try:
            os.read(self._reader, 4096)
        except (BlockingIOError, OSError):
            pass

    def close(self) -> None:
        """Let the pipe go."""
        if self._hub is not None:
            self._hub.remove(self._reader)
            self._hub = None
        for fd in (self._reader, self._writer):
            try:
                os.close(fd)
            except OSError:
                pass
