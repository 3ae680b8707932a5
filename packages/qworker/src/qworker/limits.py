"""Rate limits: a token bucket per task type."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any


class TokenBucket:
    """Lets `fill_rate` tokens per second through, at most `capacity` at once.

    Any object with `consume(tokens)` and `expected_time(tokens)` can stand in for it in
    `consumer.task_buckets`.

    Args:
        fill_rate: Tokens per second, above zero.
        capacity: Tokens that an idle bucket saves up.
        clock: Monotonic seconds.
    """

    __slots__ = ("_clock", "_tokens", "_updated", "capacity", "fill_rate")

    def __init__(
        self, fill_rate: float, capacity: float = 1.0, clock: Callable[[], float] = monotonic
    ) -> None:
        if fill_rate <= 0:
            raise ValueError(f"fill_rate must be above zero, got {fill_rate!r}")
        self.fill_rate = float(fill_rate)
        self.capacity = float(capacity)
        self._clock = clock
        self._tokens = self.capacity
        self._updated = clock()

    def consume(self, tokens: float = 1) -> bool:
        """Take `tokens` when there are that many; all or nothing."""
        self._refill()
        # Sums of floats fall short of a whole token by parts of a billion; without the margin the timer that
        # `expected_time` set would find the bucket not quite full, and come back for nothing.
        if self._tokens + 1e-9 < tokens:
            return False
        self._tokens = max(self._tokens - tokens, 0.0)
        return True

    can_consume = consume

    def expected_time(self, tokens: float = 1) -> float:
        """Seconds until `tokens` are there; 0.0 when they are."""
        self._refill()
        return max(tokens - self._tokens, 0.0) / self.fill_rate

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self.capacity, self._tokens + (now - self._updated) * self.fill_rate)
        self._updated = now


class HeldRequests:
    """Those requests of one task type that wait for their turn, and the timer that lets them go.

    Args:
        bucket: The limit; anything with `consume` and `expected_time`.
        timer: Has `call_after(seconds, callback)`.
        release: Called with each request when its turn has come.
    """

    __slots__ = ("bucket", "release", "timer", "timer_entry", "waiting")

    def __init__(self, bucket: Any, timer: Any, release: Callable[[Any], None]) -> None:
        self.bucket = bucket
        self.timer = timer
        self.release = release
        self.waiting: deque[Any] = deque()
        self.timer_entry: Any = None

    def admit(self, request: Any) -> bool:
        """True when `request` may run now; otherwise it is held and released later, in order."""
        if not self.waiting and self.bucket.consume(1):
            return True
        self.waiting.append(request)
        self._schedule()
        return False

    def take_all(self) -> list[Any]:
        """Every held request; nothing is held afterwards."""
        if self.timer_entry is not None:
            self.timer_entry.cancel()
            self.timer_entry = None
        held = list(self.waiting)
        self.waiting.clear()
        return held

    def _schedule(self) -> None:
        if self.timer_entry is None and self.waiting:
            self.timer_entry = self.timer.call_after(self.bucket.expected_time(1), self._on_time)

    def _on_time(self) -> None:
        self.timer_entry = None
        while self.waiting and self.bucket.consume(1):
            self.release(self.waiting.popleft())
        self._schedule()
