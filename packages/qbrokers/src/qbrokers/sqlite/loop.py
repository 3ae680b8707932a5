"""A connection in kombu's event loop."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from qbrokers.errors import DatabaseFull, DatabaseLocked

from .wakeup import Waiter

logger = logging.getLogger(__name__)


class Receiver(Protocol):
    """What the loop calls."""

    def fetch(self) -> bool:
        """Write what is settled and claim what fits; return whether there is something to deliver."""

    def deliver_all(self) -> None:
        """Give out what is there."""


class LoopLink:
    """Calls the connection when its descriptor is readable, and at the end of every turn of the loop."""

    def __init__(self, hub: Any, waiter: Waiter, receiver: Receiver) -> None:
        self.hub = hub
        self._waiter = waiter
        self._receiver = receiver
        self._troubled = False
        self._closed = False
        hub.add_reader(waiter.fileno(), self._on_readable)
        hub.on_tick.add(self._on_tick)
        waiter.wake()

    def close(self) -> None:
        """Leave the loop."""
        self._closed = True
        self.hub.on_tick.discard(self._on_tick)
        self.hub.remove_reader(self._waiter.fileno())

    def _on_readable(self) -> None:
        try:
            self._receiver.deliver_all()
        except (DatabaseLocked, DatabaseFull) as error:
            self._sit_out(error)

    def _on_tick(self) -> None:
        """Before the loop sleeps: one transaction for all that was settled in this turn."""
        # The loop walks over a copy of its callbacks.
        if self._closed:
            return
        try:
            found = self._receiver.fetch()
        except (DatabaseLocked, DatabaseFull) as error:
            self._sit_out(error)
            return
        if self._troubled:
            self._troubled = False
            logger.info("The SQLite broker works again.")
        if found:
            # Delivered after the loop has looked at its other descriptors.
            self._waiter.wake()

    def _sit_out(self, error: Exception) -> None:
        """A lock or a full disk is no reason to drop the connection: nothing is lost by waiting."""
        if not self._troubled:
            self._troubled = True
            logger.warning(
                "%s. Acknowledgements are kept and written as soon as that works again; until then no new "
                "messages are taken.",
                error,
            )
