"""What a schedule is: it tells, from the time of the last run, whether a run is due and how long to wait."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any, NamedTuple, Self

from qcore.times import get_zone, make_aware, utc_now

NEVER = math.inf
"""Seconds until a run that will not come."""


class ScheduleState(NamedTuple):
    """Whether a run is due now, and in how many seconds to ask again."""

    is_due: bool
    next: float


class BaseSchedule(ABC):
    """Base of schedules.

    Args:
        nowfun: Tells the time; naive times are understood as UTC.
        app: Gives time, zone and settings that were not given otherwise.
        tz: Zone in which the schedule is understood.
    """

    def __init__(
        self,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        tz: str | tzinfo | None = None,
    ) -> None:
        self.nowfun = nowfun
        self.app = app
        self._tz = tz

    @abstractmethod
    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time left until the next run; negative when it is overdue."""

    @abstractmethod
    def is_due(self, last_run_at: datetime) -> ScheduleState:
        """Whether a run is due, and seconds until the next one (of the following one when it is)."""

    def advance(self, last_run_at: datetime, now: datetime) -> datetime:
        """The time of last run to remember when a due run is sent at `now`."""
        return now

    def now(self) -> datetime:
        """The current time, aware."""
        if self.nowfun is not None:
            return make_aware(self.nowfun())
        return make_aware(self.app.now()) if self.app is not None else utc_now()

    @property
    def tz(self) -> tzinfo:
        """The zone in which the schedule is understood: its own, else the app's, else UTC."""
        if self._tz is not None:
            return get_zone(self._tz)
        return get_zone(self.app.timezone) if self.app is not None else get_zone(None)

    @tz.setter
    def tz(self, zone: str | tzinfo | None) -> None:
        self._tz = zone

    def bind(self, app: Any) -> Self:
        """A copy that asks `app` for what it lacks; the schedule itself when it has an app already."""
        if app is None or self.app is not None:
            return self
        bound = copy.copy(self)
        bound.app = app
        return bound

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "app": None}  # an app does not travel to another process

    __hash__ = None  # type: ignore[assignment]  # schedules are values that can be changed
