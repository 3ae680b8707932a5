"""Lamport's logical clock: what happened before what, across machines."""

from __future__ import annotations

import threading


class LogicalClock:
    """Counts events; shared by events and control messages."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self._lock = threading.Lock()

    def forward(self) -> int:
        """Count one event of our own."""
        with self._lock:
            self.value += 1
            return self.value

    def adjust(self, other: int) -> int:
        """A message stamped `other` arrived."""
        with self._lock:
            self.value = max(self.value, other) + 1
            return self.value
