"""Remote control of beat: it answers `ping`, and only while the scheduler ticks.

`qcli inspect ping -d qbeat@host` is a health check: a beat that hangs keeps silent.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any, Protocol

from qcore.connections import describe
from qcore.refusal import can_broadcast

logger = logging.getLogger(__name__)

LEAST_TICK_AGE_SECONDS = 60.0
RECONNECT_SECONDS = 5.0
DRAIN_SECONDS = 1.0
JOIN_SECONDS = 3.0


class Ticking(Protocol):
    """What the node must know of the service."""

    app: Any
    hostname: str | None
    max_interval: float | None
    last_tick: float | None


def node_name(hostname: str | None = None) -> str:
    """The node name of beat: `hostname` as it is when it has an `@`, else `qbeat@<hostname>`."""
    if hostname and "@" in hostname:
        return hostname
    return f"qbeat@{hostname or socket.gethostname()}"


class BeatNode:
    """Serves `ping` in a thread, on a connection of its own, and connects again when that is lost."""

    def __init__(self, service: Ticking) -> None:
        self.service = service
        self.hostname = node_name(service.hostname)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def max_tick_age(self) -> float:
        """Seconds without a tick after which beat keeps silent; 0 never."""
        conf = self.service.app.conf
        if conf.beat_remote_control_max_tick_age is not None:
            return float(conf.beat_remote_control_max_tick_age)
        return max(2 * (self.service.max_interval or 300.0), LEAST_TICK_AGE_SECONDS)

    def is_stalled(self) -> bool:
        """Whether the scheduler has not ticked for too long; one that stands by is not stalled."""
        last, limit = self.service.last_tick, self.max_tick_age()
        return bool(limit) and last is not None and time.monotonic() - last > limit

    def start(self) -> None:
        """Start the thread, unless the broker cannot broadcast."""
        with self.service.app.connection_for_read() as connection:
            if not can_broadcast(connection):
                logger.warning(
                    "beat: Remote control is off: the broker %s cannot broadcast.", describe(connection)
                )
                return
        self._thread = threading.Thread(target=self._run, name="qbeat-control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; one that waits for a dead broker is left to itself."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self.service.app.connection_for_read() as connection:
                    self._serve(connection)
            except Exception as exc:  # noqa: BLE001 - broker clients raise what they like; beat goes on
                logger.warning("beat: no remote control for %s seconds: %r", RECONNECT_SECONDS, exc)
                self._stopping.wait(RECONNECT_SECONDS)

    def _serve(self, connection: Any) -> None:
        connection.ensure_connection(max_retries=1, interval_start=0.2)
        mailbox = self.service.app.control.mailbox(connection)
        node = mailbox.Node(
            self.hostname, handlers={"ping": lambda state: {"ok": "pong"}}, channel=connection.channel()
        )

        def on_message(body: Any, message: Any) -> None:
            # Commands meant for workers are none of our business: an error reply would litter their output.
            if not isinstance(body, dict) or body.get("method") not in node.handlers:
                return
            if self.is_stalled():
                logger.warning("beat: not answering ping, as the scheduler does not tick")
                return
            node.handle_message(body, message)

        consumer = node.listen(callback=on_message)
        try:
            while not self._stopping.is_set():
                try:
                    connection.drain_events(timeout=DRAIN_SECONDS)
                except TimeoutError:
                    connection.heartbeat_check()
        finally:
            consumer.cancel()
