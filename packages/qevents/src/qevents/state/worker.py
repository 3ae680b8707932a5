"""One worker as its events describe it.

A worker is alive until its last heartbeat plus twice its heartbeat interval. Heartbeats count by the time of
receipt, so that a worker whose clock is wrong does not look dead.
"""

from __future__ import annotations

import bisect
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

logger = logging.getLogger(__name__)

DEFAULT_FREQ_SECONDS = 60.0
EXPIRE_WINDOW_PERCENT = 200
MAX_DRIFT_SECONDS = 16
HEARTBEATS_KEPT = 4

# What every event carries about itself; it says nothing about the worker.
_ENVELOPE = frozenset({"type", "timestamp", "local_received", "utcoffset"})


def heartbeat_expires(
    timestamp: float,
    freq: float = DEFAULT_FREQ_SECONDS,
    expire_window: float = EXPIRE_WINDOW_PERCENT,
) -> float:
    """Epoch seconds until which a worker is alive that sent a heartbeat at `timestamp`.

    Args:
        timestamp: Epoch seconds of receipt.
        freq: Heartbeat interval in seconds.
        expire_window: Percent of `freq` to wait.
    """
    return float(timestamp) + float(freq) * (expire_window / 100)


class Worker:
    """A worker: equal to another one of the same `hostname`.

    Attributes:
        hostname: Node name.
        freq: Heartbeat interval in seconds.
        heartbeats: Epoch seconds at which the last heartbeats were received, oldest first.
        clock: Logical clock of its last event.
        active, processed: Number of tasks that run, and that were run.
        loadavg: Load of the machine, three numbers.
        sw_ident, sw_ver, sw_sys: Software, its version, operating system.
    """

    _fields = (
        "hostname",
        "pid",
        "freq",
        "heartbeats",
        "clock",
        "active",
        "processed",
        "loadavg",
        "sw_ident",
        "sw_ver",
        "sw_sys",
    )
    # Fields of future events land in the instance dictionary, which is made only then.
    __slots__ = (*_fields, "__dict__", "__weakref__", "_drift_warned")

    heartbeat_max = HEARTBEATS_KEPT
    expire_window = EXPIRE_WINDOW_PERCENT

    def __init__(
        self,
        hostname: str | None = None,
        pid: int | None = None,
        freq: float = DEFAULT_FREQ_SECONDS,
        heartbeats: list[float] | None = None,
        clock: int | None = 0,
        active: int | None = None,
        processed: int | None = None,
        loadavg: list[float] | None = None,
        sw_ident: str | None = None,
        sw_ver: str | None = None,
        sw_sys: str | None = None,
    ) -> None:
        self.hostname = hostname
        self.pid = pid
        self.freq = freq
        self.heartbeats: list[float] = [] if heartbeats is None else heartbeats
        self.clock = clock or 0
        self.active = active
        self.processed = processed
        self.loadavg = loadavg
        self.sw_ident = sw_ident
        self.sw_ver = sw_ver
        self.sw_sys = sw_sys
        self._drift_warned = False

    def event(
        self,
        type_: str | None,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in an event.

        Args:
            type_: `online`, `heartbeat`, `offline`, another one, or None for a sign of life of another kind.
            timestamp: Epoch seconds at which it was sent.
            local_received: Epoch seconds at which it was received.
            fields: Fields of the event; they become attributes.
        """
        if fields:
            self.update(fields)
        if type_ == "offline":
            self.heartbeats.clear()
        elif local_received and timestamp:
            self._check_drift(timestamp, local_received)
            self._add_heartbeat(local_received)

    def update(self, fields: Mapping[str, Any], **more: Any) -> None:
        """Set attributes; None never replaces a value that the worker cannot be without."""
        for name, value in {**fields, **more}.items():
            if name in _ENVELOPE or (value is None and name in ("hostname", "freq", "clock", "heartbeats")):
                continue
            setattr(self, name, value)

    def _add_heartbeat(self, received: float) -> None:
        heartbeats = self.heartbeats
        if len(heartbeats) >= self.heartbeat_max:
            del heartbeats[0]
        if not heartbeats or received >= heartbeats[-1]:
            heartbeats.append(received)
        else:
            bisect.insort(heartbeats, received)

    def _check_drift(self, timestamp: float, received: float) -> None:
        drift = abs(int(received) - int(timestamp))
        if drift <= MAX_DRIFT_SECONDS:
            self._drift_warned = False
        elif not self._drift_warned:
            self._drift_warned = True
            logger.warning(
                "The clock of %s is %d seconds apart from ours (sent %s, received %s): synchronise the "
                "clocks, or times shown for its tasks are wrong",
                self.hostname,
                drift,
                datetime.fromtimestamp(timestamp, UTC).isoformat(),
                datetime.fromtimestamp(received, UTC).isoformat(),
            )

    @property
    def heartbeat_expires(self) -> float:
        """Epoch seconds until which the worker is alive; 0.0 when it never sent a heartbeat."""
        if not self.heartbeats:
            return 0.0
        return heartbeat_expires(self.heartbeats[-1], self.freq, self.expire_window)

    @property
    def alive(self) -> bool:
        """Whether the last heartbeat is recent enough."""
        return bool(self.heartbeats) and time.time() < self.heartbeat_expires

    @property
    def status_string(self) -> str:
        """`ONLINE` or `OFFLINE`."""
        return "ONLINE" if self.alive else "OFFLINE"

    @property
    def id(self) -> str:
        """Node name and process id."""
        return f"{self.hostname}.{self.pid}"

    def __eq__(self, other: object) -> bool:
        return self.hostname == other.hostname if isinstance(other, Worker) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hostname)

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.status_string} clock:{self.clock})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, tuple(getattr(self, name) for name in self._fields)
