"""A thread that makes results durable before their outcomes are reported, many at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Event, Thread
from traceback import format_exc
from typing import Generic, TypeVar

from .contract import Runner

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Flusher(Generic[T]):
    """Collects what is done while the last flush is under way; then one flush serves all of it.

    Args:
        runner: its `flush` is called in this thread, so that neither the loop nor a job waits for a store.
        deliver: gets what was flushed, and None or the traceback of a failed flush; called in this thread.
    """

    def __init__(self, runner: Runner, deliver: Callable[[list[T], str | None], None]) -> None:
        self._runner = runner
        self._deliver = deliver
        self._waiting: deque[T] = deque()
        self._wanted = Event()
        self._stopping = False
        self._thread = Thread(target=self._run, name="flush", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: T) -> None:
        """Report `item` after the next flush; safe from every thread."""
        self._waiting.append(item)
        self._wanted.set()

    def stop(self) -> None:
        """Flush what is there and end; the thread may still be at it when this returns."""
        self._stopping = True
        self._wanted.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        while not (self._stopping and not self._waiting):
            self._wanted.wait()
            self._wanted.clear()
            items = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if items:
                self._deliver(items, self._flush())

    def _flush(self) -> str | None:
        try:
            self._runner.flush()
        except Exception:  # noqa: BLE001 - foreign code; the jobs are not done then, and are reported as lost
            return format_exc()
        return None
