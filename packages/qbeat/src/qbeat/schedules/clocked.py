"""Once, at a given time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from qbeat.schedules.base import NEVER, BaseSchedule, ScheduleState
from qcore.times import make_aware


class clocked(BaseSchedule):
    """Runs once at `clocked_time`, or as soon as possible when beat was down then and knew the entry before.

    Args:
        clocked_time: A naive time is understood in the zone of the schedule.
        nowfun, app, tz: As `BaseSchedule`.
    """

    def __init__(
        self,
        clocked_time: datetime,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        tz: str | tzinfo | None = None,
    ) -> None:
        super().__init__(nowfun, app, tz)
        self.clocked_time = clocked_time

    def at(self) -> datetime:
        """The time of the run in UTC."""
        return make_aware(self.clocked_time, self.tz).astimezone(UTC)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time left until the run; negative when it is overdue or past."""
        return self.at() - self.now().astimezone(UTC)

    def is_due(self, last_run_at: datetime) -> ScheduleState:
        """Whether the run is due; after it, never again."""
        at = self.at()
        if make_aware(last_run_at).astimezone(UTC) >= at:
            return ScheduleState(False, NEVER)
        remaining = (at - self.now().astimezone(UTC)).total_seconds()
        return ScheduleState(True, NEVER) if remaining <= 0 else ScheduleState(False, remaining)

    def __eq__(self, other: object) -> bool:
        return self.at() == other.at() if isinstance(other, clocked) else NotImplemented

    def __repr__(self) -> str:
        return f"<clocked: {self.clocked_time.isoformat()}>"
