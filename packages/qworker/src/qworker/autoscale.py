"""Autoscaler: as many pool processes as there is work for, between two bounds."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qworker.state import SCHEDULED

if TYPE_CHECKING:
    from qworker.worker import WorkController

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
KEEPALIVE_SECONDS = 30.0


class Autoscaler:
    """Grows the pool at once when more requests are held than processes exist, and shrinks it when it is idle.

    Subclass it, override `demand`, and name the class in the setting `worker_autoscaler`.

    Args:
        worker: The worker.
        max_concurrency: Most processes.
        min_concurrency: Fewest processes.
        keepalive: Seconds of less work before the pool shrinks.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        worker: WorkController,
        max_concurrency: int,
        min_concurrency: int = 0,
        keepalive: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker = worker
        self.max_concurrency = max_concurrency
        self.min_concurrency = min_concurrency
        env = os.environ.get("AUTOSCALE_KEEPALIVE")
        self.keepalive = keepalive if keepalive is not None else float(env or KEEPALIVE_SECONDS)
        self.clock = clock
        self._busy_since = clock()
        self._entry: Any = None

    # -- rules

    def demand(self) -> int:
        """How many processes the work would fill."""
        return sum(request.phase is not SCHEDULED for request in self.worker.state.by_tag.values())

    def maybe_scale(self) -> bool:
        """Adjust the pool; True when it changed."""
        processes = self.processes
        wanted = min(max(self.demand(), self.min_concurrency), self.max_concurrency)
        if wanted >= processes:
            self._busy_since = self.clock()
        if wanted > processes:
            self.scale_up(wanted - processes)
            return True
        if wanted < processes and self.clock() - self._busy_since >= self.keepalive:
            self.scale_down(processes - wanted)
            return True
        return False

    # -- actions

    @property
    def processes(self) -> int:
        """Current size of the pool."""
        return int(self.worker.pool.num_processes)

    def scale_up(self, n: int) -> None:
        """Add `n` processes."""
        logger.info("Scaling up %d processes.", n)
        self.worker.pool.grow(n)
        self._resized()

    def scale_down(self, n: int) -> None:
        """Take `n` processes away; busy ones finish first."""
        logger.info("Scaling down %d processes.", n)
        self._busy_since = self.clock()
        self.worker.pool.shrink(n)
        self._resized()

    def update(self, max: int | None = None, min: int | None = None) -> tuple[int, int]:
        """Set new bounds, and obey them at once; returns both."""
        if max is not None:
            self.max_concurrency = max
        if min is not None:
            self.min_concurrency = min
        if self.min_concurrency > self.max_concurrency:
            self.min_concurrency, self.max_concurrency = self.max_concurrency, self.min_concurrency
        if self.processes > self.max_concurrency:
            self.scale_down(self.processes - self.max_concurrency)
        elif self.processes < self.min_concurrency:
            self.scale_up(self.min_concurrency - self.processes)
        return self.max_concurrency, self.min_concurrency

    def _resized(self) -> None:
        consumer = self.worker.consumer
        if consumer is not None and consumer.prefetch is not None:
            consumer.prefetch.resize(max(self.processes, 1))

    # -- life

    def start(self) -> None:
        """Look at the load every second."""
        self._entry = self.worker.timer.call_repeatedly(INTERVAL_SECONDS, self.maybe_scale)

    def stop(self) -> None:
        """Stop looking."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def info(self) -> dict[str, Any]:
        """For the statistics."""
        return {
            "max": self.max_concurrency,
            "min": self.min_concurrency,
            "current": self.processes,
            "qty": self.demand(),
        }
