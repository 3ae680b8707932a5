"""Step Heart: worker-online, worker-heartbeat and worker-offline events."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

from qcore.signals import heartbeat_sent
from qworker import __version__, bootsteps

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

DEFAULT_INTERVAL_SECONDS = 2.0

SOFTWARE = {"sw_ident": "py-celery", "sw_ver": __version__, "sw_sys": platform.system()}
"""What workers say of themselves."""


class Heartbeat:
    """Sends the events as long as it runs.

    Args:
        consumer: Whose state is told.
        interval: Seconds between two heartbeats.
    """

    def __init__(self, consumer: Consumer, interval: float | None = None) -> None:
        self.consumer = consumer
        self.interval = float(interval or DEFAULT_INTERVAL_SECONDS)
        self._entry: Any = None

    def start(self) -> None:
        """Say that the worker is online, and go on saying so."""
        if self.consumer.event_dispatcher is None or not self.consumer.event_dispatcher.enabled:
            return
        self.send("worker-online")
        self._entry = self.consumer.timer.call_repeatedly(
            self.interval, self.send, ("worker-heartbeat",), priority=1
        )

    def stop(self) -> None:
        """Say that the worker goes offline."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None
            self.send("worker-offline")

    def send(self, event: str = "worker-heartbeat", **fields: Any) -> None:
        """Send one event of the kind `worker-*`."""
        state = self.consumer.state
        dispatcher = self.consumer.event_dispatcher
        if dispatcher is None:
            return
        values = {
            "freq": self.interval,
            "active": state.active_count,
            "processed": state.processed,
            "loadavg": load_average(),
            **SOFTWARE,
            **fields,
        }
        dispatcher.send(event, **values)
        if event == "worker-heartbeat":
            heartbeat_sent.send(sender=self)


class Heart(bootsteps.StartStopStep):
    """Makes `consumer.heart`."""

    requires = ("qworker.consumer.events:Events",)

    def __init__(
        self,
        c: Consumer,
        without_heartbeat: bool = False,
        heartbeat_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.enabled = not without_heartbeat
        self.interval = heartbeat_interval
        c.heart = None
        super().__init__(c, **kwargs)

    def start(self, c: Consumer) -> None:
        """Start beating."""
        c.heart = Heartbeat(c, self.interval)
        c.heart.start()

    def stop(self, c: Consumer) -> None:
        """Stop beating."""
        heart, c.heart = c.heart, None
        if heart is not None:
            heart.stop()

    shutdown = stop


def load_average() -> list[float]:
    """1, 5 and 15 minutes, two digits."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return [0.0, 0.0, 0.0]
