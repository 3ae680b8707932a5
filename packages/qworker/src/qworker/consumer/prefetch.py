"""How many messages the worker holds at once.

The base is `worker_prefetch_multiplier` times the number of slots. One more is fetched for each message that is
held back (eta, rate limit), so that those do not stop the rest.

While all that comes is short, the count grows until it is worth some 40 ms of work, so that children can be given many
jobs in one frame and results and acknowledgements share round trips. It falls back to the base at once when a
task type shows up that is long, or that is not known yet: another worker may be free to run what waits behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qcore.edge import kombu

if TYPE_CHECKING:
    from qworker.strategy import TaskStrategy

SHORT_SECONDS = 0.005
# One run that took longer shrinks, whatever the average of its type says.
OUTLIER_SECONDS = 0.03
WINDOW_SECONDS = 0.04
MAX_ADAPTIVE = 1000
# What a task costs around its body; keeps the target finite for bodies that take no time.
OVERHEAD_SECONDS = 0.00004
GROW_EVERY_SECONDS = 0.05
PAUSE_AFTER_LONG_SECONDS = 1.0
MAX_PREFETCH = 65_535  # a 16 bit field in AMQP


class Prefetch:
    """Keeps kombu's `QoS` at the fitting value.

    Args:
        set_count: Tells the broker: `set_count(prefetch_count=n)`.
        multiplier: Messages per slot; 0 fetches without limit.
        slots: Number of slots of the pool.
        adaptive: Grow for short tasks.
        limit: Most messages that are held at any time.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        set_count: Callable[..., Any],
        multiplier: int,
        slots: int,
        *,
        adaptive: bool = False,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.multiplier = multiplier
        self.slots = slots
        self.adaptive = adaptive and multiplier > 0
        self.base = multiplier * slots
        self.extra = 0
        self.owed = 0
        self.clock = clock
        self.qos: Any = kombu("kombu.common").QoS(set_count, self.base, max_prefetch=limit or MAX_PREFETCH)
        self.average_seconds = 0.0
        self._grow_after = 0.0
        self._has_run = False

    def resize(self, slots: int) -> None:
        """The pool has `slots` slots now."""
        change = (slots - self.slots) * self.multiplier
        self.slots = slots
        self.base += change
        if change > 0:
            self.qos.increment_eventually(change)
        elif change < 0:
            self.qos.decrement_eventually(-change)

    def note_dispatch(self, strategy: TaskStrategy) -> None:
        """A task of this type goes to the pool."""
        if self.extra and (strategy.runs == 0 or strategy.average_seconds > SHORT_SECONDS):
            self.shrink()

    def reduce_for(self, running: int) -> None:
        """Start lower, as `running` tasks of the lost connection still fill slots; each that ends gives back."""
        if self.base and running:
            self.owed = min(running * self.multiplier, self.base - 1)
            self.qos.decrement_eventually(self.owed)

    def note_run(self, seconds: float) -> None:
        """A task took `seconds`."""
        if self.owed:
            back = min(self.multiplier, self.owed)
            self.owed -= back
            self.qos.increment_eventually(back)
        self._has_run = True
        if seconds > OUTLIER_SECONDS:
            self.shrink()
        else:
            self.average_seconds += (seconds - self.average_seconds) * 0.05

    def shrink(self) -> None:
        """Back to the base, and no growth for a while."""
        self._grow_after = self.clock() + PAUSE_AFTER_LONG_SECONDS
        if self.extra:
            self.qos.decrement_eventually(self.extra)
            self.extra = 0

    def grow(self) -> None:
        """Take a step towards the target, if tasks were done since the last one."""
        if not self.adaptive or not self._has_run:
            return
        self._has_run = False
        now = self.clock()
        if now < self._grow_after:
            return
        self._grow_after = now + GROW_EVERY_SECONDS
        per_task = max(self.average_seconds, OVERHEAD_SECONDS)
        target = min(int(self.slots * WINDOW_SECONDS / per_task), MAX_ADAPTIVE) - self.base
        wanted = min(target, max(self.extra * 2, self.base))
        if wanted > self.extra:
            self.qos.increment_eventually(wanted - self.extra)
            self.extra = wanted

    def apply(self) -> None:
        """Adapt, and tell the broker when the value has changed; called at every tick."""
        self.grow()
        qos = self.qos
        if qos.prev != qos.value:
            qos.update()
