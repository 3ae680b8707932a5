"""Every so often."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from qbeat.schedules.base import BaseSchedule, ScheduleState
from qcore.times import humanize_seconds, make_aware, to_timedelta

_ZERO = timedelta(0)


class schedule(BaseSchedule):
    """Runs every `run_every`, counted from the last run.

    The runs keep to their grid: a run that is sent a little late does not put off those after it, and when
    several were missed, one is sent. A last run that lies in the future, as the clock was set back, counts as
    now.

    Args:
        run_every: Seconds, or a timedelta; more than zero.
        relative: By the clock: run at the start of the second, minute, hour or day that fits the interval.
        nowfun, app, tz: As `BaseSchedule`.

    Raises:
        ValueError: `run_every` is not more than zero.
    """

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        tz: str | tzinfo | None = None,
    ) -> None:
        super().__init__(nowfun, app, tz)
        self.run_every = _interval(run_every)
        self.relative = relative

    def next_run(self, last_run_at: datetime, now: datetime | None = None) -> datetime:
        """When to run after `last_run_at`, in UTC."""
        start = make_aware(last_run_at).astimezone(UTC)
        if now is not None:
            start = min(start, now.astimezone(UTC))
        end = start + self._every
        return self._round_down(end) if self.relative else end

    @property
    def _every(self) -> timedelta:
        if self.run_every is None:
            raise ValueError(f"{type(self).__name__} has no interval: give run_every, or override is_due")
        return self.run_every

    def _round_down(self, moment: datetime) -> datetime:
        local = moment.astimezone(self.tz)
        if self._every >= timedelta(days=1):
            local = local.replace(hour=0, minute=0, second=0, microsecond=0)
        elif self._every >= timedelta(hours=1):
            local = local.replace(minute=0, second=0, microsecond=0)
        elif self._every >= timedelta(minutes=1):
            local = local.replace(second=0, microsecond=0)
        else:
            local = local.replace(microsecond=0)
        return local.astimezone(UTC)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time left until the next run; negative when it is overdue."""
        now = self.now().astimezone(UTC)
        return self.next_run(last_run_at, now) - now

    def is_due(self, last_run_at: datetime) -> ScheduleState:
        """Whether a run is due, and seconds until the next one."""
        now = self.now().astimezone(UTC)
        remaining = self.next_run(last_run_at, now) - now
        if remaining > _ZERO:
            return ScheduleState(False, remaining.total_seconds())
        following = self.next_run(self.advance(last_run_at, now), now) - now
        return ScheduleState(True, max(following.total_seconds(), 0.0))

    def advance(self, last_run_at: datetime, now: datetime) -> datetime:
        """The last point of the grid that is not after `now`."""
        if self.run_every is None or self.relative:
            return now
        start, now = make_aware(last_run_at).astimezone(UTC), now.astimezone(UTC)
        passed = (now - start) // self.run_every
        return start + passed * self.run_every if passed > 0 else now

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return max(self._every.total_seconds(), 0.0)

    @property
    def human_seconds(self) -> str:
        """The interval for people: `10.00 seconds`."""
        return humanize_seconds(self.seconds)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, schedule):
            return (self.run_every, self.relative) == (other.run_every, other.relative)
        return NotImplemented

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds if self.run_every is not None else 'own rule'}>"


def _interval(run_every: float | timedelta | None) -> timedelta | None:
    if isinstance(run_every, bool) or not isinstance(run_every, (int, float, timedelta, type(None))):
        raise ValueError(f"an interval is seconds or a timedelta, not {run_every!r}")
    try:
        interval = to_timedelta(run_every)
    except (OverflowError, ValueError) as exc:
        raise ValueError(f"an interval of {run_every!r} seconds is beyond all bounds") from exc
    if interval is not None and interval <= _ZERO:
        raise ValueError(f"an interval must be more than zero, not {run_every!r}")
    return interval
