"""A timer thread that calls functions again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)


class Entry(Protocol):
    """A repeated call that can be stopped."""

    def cancel(self) -> object: ...


class Timer(Protocol):
    """What a camera needs of a timer; the timer of a worker's event loop has it too."""

    def call_repeatedly(self, interval: float, function: Callable[[], object]) -> Entry:
        """Call `function` every `interval` seconds."""


class RepeatingThread:
    """Calls `function` every `interval` seconds in a daemon thread, until cancelled.

    What the function raises is logged, and the calls go on.
    """

    def __init__(self, interval: float, function: Callable[[], object]) -> None:
        self.interval = interval
        self.function = function
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qevents-timer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._cancelled.wait(self.interval):
            try:
                self.function()
            except Exception:
                # Foreign code (a camera): one bad picture must not end the series.
                logger.exception("A repeated call failed; the next one is due in %s seconds", self.interval)

    def cancel(self) -> None:
        """Stop; a call that runs is waited for, unless it is this very thread that asks."""
        self._cancelled.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()


class ThreadTimer:
    """A `Timer` with a thread for each repeated call."""

    def call_repeatedly(self, interval: float, function: Callable[[], object]) -> RepeatingThread:
        """Call `function` every `interval` seconds."""
        return RepeatingThread(interval, function)
