"""Heartbeats: a server is told that we live while the program's loop is busy, and is found out when it is gone.

A server drops a connection on which it heard nothing for two intervals, and gives away what the connection held. The
loop sends heartbeats between its ticks; where tasks run in that thread (pool `solo`) a tick may take longer than two
intervals, so a thread of its own sends them as well.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

logger = logging.getLogger(__name__)

FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"


class Heartbeating(Protocol):
    """The connection."""

    heartbeat: float
    """Seconds of one interval, as agreed with the server; 0 for none."""

    def send_heartbeat_when_due(self) -> None: ...


class Heart:
    """A thread that lives as long as the connection is in an event loop."""

    def __init__(self, connection: Heartbeating) -> None:
        self._connection = connection
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qbrokers-amqp-heart", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._connection.heartbeat / 4):
            try:
                self._connection.send_heartbeat_when_due()
            except Exception:
                # The loop meets the lost connection at its next read, and handles it there.
                logger.debug("sending a heartbeat failed", exc_info=True)

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()


def interval_for(heartbeat: float, silence_seconds: float) -> float:
    """The interval to ask for: two of them are no longer than the silence that is put up with; 0: no heartbeats."""
    if not heartbeat or not silence_seconds:
        return heartbeat
    return min(heartbeat, max(silence_seconds // 2, 1.0))
