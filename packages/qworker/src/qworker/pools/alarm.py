"""Soft limits by SIGALRM, for code that runs in the main thread of its process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

from .coroutine import CoroutineDriver

_EARLY_SECONDS = 0.0005
"""A timer may fire this much before the clock that we read says so."""


class AlarmLimiter:
    """One per process; opened for each job that has a soft limit. It is its own guard, and nests.

    The interval timer runs only between the outermost `guard()` of a limited job and its end, so tasks
    without a limit may use SIGALRM as they like.
    """

    def __init__(self, error: type[BaseException], on_fired: Callable[[], None]) -> None:
        self._error = error
        self._on_fired = on_fired
        self._limit = 0.0
        self._open = False
        """Whether the job has a limit that was not raised yet."""
        self._deadline: float | None = None
        self._depth = 0
        self._shields = 0
        self._waiting = False
        self._driver = CoroutineDriver()

    def open(self, limit: float) -> None:
        """The job that begins now has `limit` seconds, counted from its first guard."""
        self._limit = limit
        self._open = True
        self._deadline = None
        self._depth = self._shields = 0
        self._waiting = False

    def close(self) -> None:
        self._open = False
        self._deadline = None

    def guard(self) -> AlarmLimiter:
        return self

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        return self._driver.drive(coroutine)

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1 and self._open:
            if self._deadline is None:
                self._deadline = monotonic() + self._limit
            if signal.getsignal(signal.SIGALRM) != self._on_alarm:
                signal.signal(signal.SIGALRM, self._on_alarm)
            self._arm(self._deadline)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # First of all, so that a handler that runs from here on raises nothing.
        self._depth -= 1
        if self._depth == 0 and self._deadline is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def shield(self) -> Iterator[None]:
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._waiting and not self._shields:
                self._waiting = False
                self._fire()

    def _arm(self, deadline: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(deadline - monotonic(), 1e-6))

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        # Python may call the handler late, in another job than the one whose timer it was.
        if self._depth == 0 or self._deadline is None:
            return
        if monotonic() < self._deadline - _EARLY_SECONDS:
            self._arm(self._deadline)
        elif self._shields:
            self._waiting = True
        else:
            self._fire()

    def _fire(self) -> None:
        self._open = False
        self._deadline = None
        self._on_fired()
        error = self._error(self._limit)
        if not self._driver.throw(error):
            raise error
