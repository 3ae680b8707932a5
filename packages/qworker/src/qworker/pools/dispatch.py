"""Who is given which jobs: idle children first, several jobs at a time only of kinds that are short."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field

from .contract import PoolOptions, Work
from .crew import Crew
from .frames import JOBS, encode
from .process import Child
from .reactor import Reactor

_MAX_KINDS = 10_000
_UP, _DOWN = 0.5, 0.1
"""Weights of a new run time: a kind that gets slower is believed at once, one that gets faster later."""


class RunTimes:
    """Moving average of the run time (seconds) of each kind of work."""

    def __init__(self, short_seconds: float) -> None:
        self._short_seconds = short_seconds
        self._averages: dict[str, float] = {}

    def short(self, kind: str) -> float | None:
        """The average if the kind is short; None if it is long or unknown."""
        average = self._averages.get(kind)
        return average if average is not None and average < self._short_seconds else None

    def learn(self, kind: str, seconds: float) -> None:
        averages = self._averages
        average = averages.get(kind)
        if average is None:
            if len(averages) >= _MAX_KINDS:
                averages.clear()
            averages[kind] = seconds
        else:
            averages[kind] = average + (seconds - average) * (_UP if seconds > average else _DOWN)


@define(eq=False)
class Dispatcher:
    """Forms frames from the queue and writes them to the children."""

    options: PoolOptions
    crew: Crew
    reactor: Reactor
    on_unsendable: Callable[[Work, Exception], None]
    queue: deque[Work] = field(factory=deque)
    times: RunTimes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.times = RunTimes(self.options.short_seconds)

    def dispatch(self) -> bool:
        """Hand out what can be handed out; True if anything was."""
        queue = self.queue
        if not queue:
            return False
        available = [child for child in self.crew.active() if child.available]
        idle = [child for child in available if not child.in_flight]
        plans: dict[Child, list[Work]] = {}
        for child in idle:
            if not queue:
                break
            plans[child] = [queue.popleft()]
        if queue and self.times.short(queue[0].kind) is not None:
            self._fill(available, plans)
        for child, works in plans.items():
            self._send(child, works)
        return bool(plans)

    def _fill(self, available: list[Child], plans: dict[Child, list[Work]]) -> None:
        """Give more to children that have nothing but short jobs, the least loaded first, in equal shares."""
        queue, short = self.queue, self.times.short
        load: dict[Child, float] = {}
        for child in available:
            expected = child.expected_seconds
            for work in plans.get(child, ()):
                average = short(work.kind)
                expected = self.options.batch_seconds if average is None else expected + average
            if expected < self.options.batch_seconds:
                load[child] = expected
        children = sorted(load, key=load.__getitem__)
        while children and queue:
            child = children.pop(0)
            share = -(-len(queue) // (len(children) + 1))
            works = plans.setdefault(child, [])
            room = min(self._room(child) - len(works), share)
            expected = load[child]
            while room > 0 and queue and expected < self.options.batch_seconds:
                average = short(queue[0].kind)
                if average is None:
                    break
                expected += average
                works.append(queue.popleft())
                room -= 1
            if not works:
                del plans[child]

    def _room(self, child: Child) -> int:
        room = min(self.options.batch_jobs, 2 * self.options.batch_jobs - len(child.in_flight))
        if self.options.max_tasks_per_child is not None:
            room = min(room, self.options.max_tasks_per_child - child.assigned)
        return room

    def _send(self, child: Child, works: list[Work]) -> None:
        first = child.sent + 1
        limits = [work.soft_limit for work in works]
        payloads = [work.payload for work in works]
        try:
            data = encode([JOBS, first, payloads, limits if limits.count(None) < len(limits) else None])
        except Exception as error:  # noqa: BLE001 - payloads are foreign; only the bad one is refused
            if len(works) == 1:
                self.on_unsendable(works[0], error)
            else:
                for work in works:
                    self._send(child, [work])
            return
        child.give(works, self._expected(works))
        child.send(data, self.reactor)
        limit = self.options.max_tasks_per_child
        if limit is not None and child.assigned >= limit:
            self.crew.retire(child)

    def _expected(self, works: list[Work]) -> float:
        """Seconds; a batch with a kind that is not short counts as full."""
        total = 0.0
        for work in works:
            average = self.times.short(work.kind)
            total += self.options.batch_seconds if average is None else average
        return total
