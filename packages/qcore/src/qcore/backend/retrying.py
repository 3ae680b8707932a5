"""Try an operation on a store again after a passing failure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from attrs import frozen

T = TypeVar("T")
logger = logging.getLogger(__name__)


@frozen(kw_only=True)
class RetryPolicy:
    """How often and at which intervals an operation is tried again.

    The pause before try n+1 is `start + n * step` seconds, or doubles from `start` when `step` is None; it never
    exceeds `longest`. `max_retries` None tries for ever.
    """

    max_retries: float | None = 3
    start: float = 0.01
    step: float | None = None
    longest: float = 10.0

    def pause(self, retries: int) -> float:
        """Seconds to wait after `retries` failed retries."""
        if self.step is None:
            return min(self.longest, self.start * float(2 ** min(retries, 40)))
        return min(self.longest, self.start + retries * self.step)

    def call(
        self,
        operation: Callable[[], T],
        passing: Callable[[BaseException], bool],
        what: str,
        before_retry: Callable[[], object] | None = None,
    ) -> T:
        """The value of `operation`, tried again while `passing(exc)` says that it may work later.

        Args:
            operation: must be safe to repeat.
            passing: tells passing failures from final ones, which are raised at once.
            what: names the operation in the log.
            before_retry: called before each further try (drop broken connections).
        """
        retries = 0
        while True:
            try:
                return operation()
            except Exception as exc:
                if not passing(exc) or (self.max_retries is not None and retries >= self.max_retries):
                    raise
                pause = self.pause(retries)
                logger.warning("%s failed (%s); next try in %.2f s", what, exc, pause)
                retries += 1
                if pause:
                    time.sleep(pause)
                if before_retry is not None:
                    before_retry()
