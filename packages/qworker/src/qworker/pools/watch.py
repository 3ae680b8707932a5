"""Looks at the cells of busy children: announces starts, takes jobs back, enforces limits."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGKILL, SIGTERM
from time import monotonic

from attrs import define

from .base import Reports
from .cell import FINISHED, RUNNING, SETTLE_SECONDS, SINCE, SOFT, STARTED
from .contract import PoolOptions, Work
from .crew import Crew
from .process import Child
from .reactor import Reactor, Timer

LOOK_SECONDS = 0.05
"""How often children with news to come are looked at."""
LONG_SECONDS = 0.03
"""A job that has run longer holds up the jobs behind it."""
REPORT_SECONDS = 10.0
"""How long storing the results of a job may take before the hard limit strikes after all."""


@define(eq=False)
class Watch:
    """Turns only while jobs are out; rests when a lone, announced job has no limit to come."""

    options: PoolOptions
    crew: Crew
    reactor: Reactor
    reports: Reports
    give_back: Callable[[list[Work]], None]
    """Takes jobs for the front of the queue."""
    on_change: Callable[[], None]
    """Jobs may have come back."""
    _timer: Timer | None = None

    def within(self, delay_seconds: float) -> None:
        """Look at the children in at most this time."""
        due = monotonic() + delay_seconds
        if self._timer is not None:
            if self._timer.due <= due + 0.0005:
                return
            self._timer.cancel()
        self._timer = self.reactor.call_later(delay_seconds, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        delays = [
            self._look_at(child, now)
            for child in [*self.crew.active(), *self.crew.leaving]
            if child.in_flight or child.recalled_at is not None
        ]
        wanted = [delay for delay in delays if delay is not None]
        if wanted:
            self.within(max(min(wanted), SETTLE_SECONDS))
        self.on_change()

    def _look_at(self, child: Child, now: float) -> float | None:
        """Deal with one child; seconds until it wants to be looked at again, None = not before it reports."""
        if child.recalled_at is not None and not child.settled:
            if now - child.recalled_at < SETTLE_SECONDS:
                return SETTLE_SECONDS
            self.settle(child)
        number = child.cell.ints[RUNNING]
        work = child.in_flight.get(number)
        if work is None or child.cell.ints[FINISHED] >= number:
            return self._look_at_idle(child, number, work, now)
        since = child.cell.floats[SINCE]
        if child.cell.ints[RUNNING] != number:  # it went on while we looked
            return LOOK_SECONDS
        self._announce(child, number, work, since)
        return self._mind_limits(child, number, work, now - since)

    def _look_at_idle(self, child: Child, number: int, work: Work | None, now: float) -> float:
        """Between two jobs, or storing results."""
        if work is not None and work.hard_limit is not None:
            late = now - child.cell.floats[SINCE] - work.hard_limit - REPORT_SECONDS
            if late > 0 and child.timed_out is None:
                self._kill(child, number, work.hard_limit)
        return LOOK_SECONDS

    def _announce(self, child: Child, number: int, work: Work, since: float) -> None:
        if child.accepted < number:
            child.accepted = number
            self.reports.accepted(work, child.pid, since)
        if child.cell.ints[SOFT] == number:
            self.announce_soft(child, number)

    def announce_soft(self, child: Child, number: int) -> None:
        """A soft limit was raised in this job."""
        work = child.in_flight.get(number)
        if work is not None and child.soft_reported < number:
            child.soft_reported = number
            self.reports.soft_timeout(work)

    def _mind_limits(self, child: Child, number: int, work: Work, elapsed: float) -> float | None:
        """What a running job's age calls for."""
        behind = len(child.in_flight) > 1 and child.recalled_at is None
        if behind and elapsed >= LONG_SECONDS:
            child.recall(number + 1)
            return SETTLE_SECONDS
        if number in child.doomed:
            return self._end_doomed(child, number)
        if work.hard_limit is not None and elapsed >= work.hard_limit and child.timed_out is None:
            if child.recalled_at is None:
                # So that nothing else can have started in it when the signal arrives.
                child.recall(number + 1)
                return SETTLE_SECONDS
            if child.settled:
                self._kill(child, number, work.hard_limit)
            return SETTLE_SECONDS
        return self._next_look(child, number, work, elapsed, behind)

    def _next_look(self, child: Child, number: int, work: Work, elapsed: float, behind: bool) -> float | None:
        delays = [LOOK_SECONDS] if behind or child.doomed else []
        if work.hard_limit is not None and child.timed_out is None:
            delays.append(max(work.hard_limit - elapsed, SETTLE_SECONDS))
        if work.soft_limit is not None and child.soft_reported < number:
            delays.append(max(work.soft_limit - elapsed, LOOK_SECONDS))
        return min(delays, default=None)

    # --- recall -----------------------------------------------------------------------------------

    def settle(self, child: Child) -> None:
        """Step (2) of the recall protocol, see `cell`."""
        child.settled = True
        from_number = child.recalled_from
        started = child.cell.ints[STARTED]
        self.give_back(child.take_back(max(from_number, started + 1), child.sent + 1))
        child.expected_seconds = self.options.batch_seconds if child.in_flight else 0.0

    # --- ends by force ----------------------------------------------------------------------------

    def doom(self, child: Child, number: int, signum: int) -> None:
        """Have this job ended by a signal, or dropped if it has not started."""
        child.doomed[number] = signum
        child.recall(number)
        self.within(SETTLE_SECONDS)

    def _end_doomed(self, child: Child, number: int) -> float:
        if not child.settled:
            return SETTLE_SECONDS
        child.kill(child.doomed.pop(number))
        return LOOK_SECONDS

    def _kill(self, child: Child, number: int, limit: float) -> None:
        child.timed_out = (number, limit)
        # It gets nothing more, whatever becomes of this job, and its successor is on its way.
        self.crew.retire(child)
        if self.options.terminate_grace > 0:
            child.kill(SIGTERM)
            self.reactor.call_later(self.options.terminate_grace, lambda: child.kill(SIGKILL))
        else:
            child.kill(SIGKILL)
