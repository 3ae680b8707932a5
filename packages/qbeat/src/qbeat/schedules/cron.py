"""By the calendar: minutes, hours and days named as in crontab(5), in a time zone.

A day must match all three of `day_of_week`, `day_of_month` and `month_of_year`.

When the zone's clock is put forward or back, these rules hold (they are those of cron, stated exactly):

* Every matching wall-clock time leads to one run. A time that the clock skips is run as much later as the
  clock was put forward (02:30 becomes 03:30), and once only if that time matches too.
* A time that the clock shows twice is run at the first of the two; only a schedule with `hour='*'`, which
  runs by elapsed time rather than at named hours, runs at both.

The next run is an instant in UTC; nothing is ever computed by adding to local times.
"""

from __future__ import annotations

from bisect import bisect_right
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from qbeat.schedules.base import BaseSchedule, ScheduleState
from qbeat.schedules.fields import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH_OF_YEAR, Spec
from qcore.times import get_zone, make_aware

_ZERO = timedelta(0)
_DAY = timedelta(days=1)
_LONGEST_MONTHS = {month: monthrange(2024, month)[1] for month in range(1, 13)}
# 29 February on a given weekday comes back after 40 years at most; the bound is only reached by a mistake.
_MONTHS_SEARCHED = 2000


class crontab(BaseSchedule):
    """Runs when the wall clock matches; a field is a number, text such as `*/15`, or a collection of numbers.

    Args:
        minute: 0 to 59.
        hour: 0 to 23.
        day_of_week: 0 (Sunday) to 6, or names.
        day_of_month: 1 to 31.
        month_of_year: 1 to 12, or names.
        nowfun, app, tz: As `BaseSchedule`.
        starting_deadline: Seconds a missed run may be late and still be sent; by default the app's setting
            `beat_cron_starting_deadline`, and without one a missed run is sent however late.

    Raises:
        ParseException: A field makes no sense (a ValueError).
        ValueError: The days do not exist, as 30 February.
    """

    def __init__(
        self,
        minute: Spec | None = "*",
        hour: Spec | None = "*",
        day_of_week: Spec | None = "*",
        day_of_month: Spec | None = "*",
        month_of_year: Spec | None = "*",
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        tz: str | tzinfo | None = None,
        starting_deadline: float | None = None,
    ) -> None:
        super().__init__(nowfun, app, tz)
        self._given = tuple(map(_given, (minute, hour, day_of_week, day_of_month, month_of_year)))
        self.minute = MINUTE.expand(self._given[0])
        self.hour = HOUR.expand(self._given[1])
        self.day_of_week = DAY_OF_WEEK.expand(self._given[2])
        self.day_of_month = DAY_OF_MONTH.expand(self._given[3])
        self.month_of_year = MONTH_OF_YEAR.expand(self._given[4])
        self.starting_deadline = starting_deadline
        self._times = tuple(time(h, m) for h in sorted(self.hour) for m in sorted(self.minute))
        if not any(min(self.day_of_month) <= _LONGEST_MONTHS[month] for month in self.month_of_year):
            raise ValueError(f"{self!r} never runs: those months have no such day")

    @classmethod
    def from_string(cls, text: str, **options: Any) -> crontab:
        """From the five fields of a crontab line: minute, hour, day of month, month, day of week.

        Raises:
            ValueError: There are not five fields, or one makes no sense.
        """
        fields = text.split()
        if len(fields) != 5:
            raise ValueError(
                f"a crontab line has five fields, as in '0 4 * * mon', not {len(fields)}: {text!r}"
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, **options)

    # -- the next run

    def next_run(self, after: datetime, tz: tzinfo | None = None) -> datetime:
        """The first matching instant later than `after`, in UTC.

        Raises:
            RuntimeError: There is none within centuries.
        """
        zone = tz or self.tz
        after = make_aware(after).astimezone(UTC)
        local = after.astimezone(zone)
        for day in self._days(local.date() - _DAY):
            if self._is_plain(day, zone):
                found = self._on_plain_day(day, local, zone)
            else:
                runs = _runs_near_a_change(self._times, len(self.hour) == 24, day, zone)
                index = bisect_right(runs, after)
                found = runs[index] if index < len(runs) else None
            if found is not None:
                return found
        raise RuntimeError(f"{self!r} has no run after {after.isoformat()}: its fields are probably wrong")

    def _days(self, start: date) -> Iterator[date]:
        """Matching days from `start` on."""
        year, month = start.year, start.month
        for _ in range(_MONTHS_SEARCHED):
            if month in self.month_of_year:
                last = monthrange(year, month)[1]
                for number in sorted(self.day_of_month):
                    if number <= last:
                        day = date(year, month, number)
                        if day >= start and day.isoweekday() % 7 in self.day_of_week:
                            yield day
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
            if year > date.max.year:
                return

    @staticmethod
    def _is_plain(day: date, zone: tzinfo) -> bool:
        """Whether the zone keeps one offset from the eve of `day` to the day after it."""
        start = datetime.combine(day, time(), zone) - _DAY
        return start.utcoffset() == (start + 3 * _DAY).utcoffset()

    def _on_plain_day(self, day: date, local: datetime, zone: tzinfo) -> datetime | None:
        if day < local.date():
            return None
        index = bisect_right(self._times, local.time()) if day == local.date() else 0
        if index == len(self._times):
            return None
        return datetime.combine(day, self._times[index], zone).astimezone(UTC)

    # -- the interface of schedules

    def remaining_delta(
        self, last_run_at: datetime, tz: str | tzinfo | None = None
    ) -> tuple[datetime, timedelta, datetime]:
        """`(last_run_at, time from there to the next run, now)`, all in UTC."""
        start = make_aware(last_run_at).astimezone(UTC)
        zone = get_zone(tz) if tz is not None else None
        return start, self.next_run(start, zone) - start, self.now().astimezone(UTC)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time left until the next run; negative when it is overdue."""
        start, delta, now = self.remaining_delta(last_run_at)
        return start + delta - now

    def is_due(self, last_run_at: datetime) -> ScheduleState:
        """Whether a run is due, and seconds until the next one."""
        now = self.now().astimezone(UTC)
        remaining = self.next_run(last_run_at) - now
        if remaining > _ZERO:
            return ScheduleState(False, remaining.total_seconds())
        following = self.next_run(now) - now
        return ScheduleState(not self._is_too_late(now), following.total_seconds())

    def _is_too_late(self, now: datetime) -> bool:
        deadline = self.starting_deadline
        if deadline is None and self.app is not None:
            deadline = self.app.conf.beat_cron_starting_deadline
        if deadline is None:
            return False
        earliest = now - timedelta(seconds=deadline, microseconds=1)
        return self.next_run(earliest) > now

    # -- values

    def __eq__(self, other: object) -> bool:
        if isinstance(other, crontab):
            return self._key() == other._key()
        return NotImplemented

    def _key(self) -> tuple[object, ...]:
        numbers = (self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year)
        return (*numbers, str(self._tz) if self._tz is not None else None, self.starting_deadline)

    def fields(self) -> dict[str, Any]:
        """The five fields as they were given, collections as lists."""
        names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        return dict(zip(names, self._given, strict=True))

    def __repr__(self) -> str:
        minute, hour, day_of_week, day_of_month, month_of_year = map(_shown, self._given)
        return f"<crontab: {minute} {hour} {day_of_month} {month_of_year} {day_of_week} (m/h/dM/MY/d)>"


@lru_cache(maxsize=64)
def _runs_near_a_change(
    times: tuple[time, ...], by_elapsed_time: bool, day: date, zone: tzinfo
) -> list[datetime]:
    """Every run of a day near which the clock is put forward or back, in UTC, sorted."""
    runs = set()
    for moment in times:
        wall = datetime.combine(day, moment, zone)
        first = wall.astimezone(UTC)
        runs.add(first)  # of a skipped time: as much later as the clock was put forward
        if by_elapsed_time:
            second = wall.replace(fold=1).astimezone(UTC)
            if second.astimezone(zone).replace(tzinfo=None, fold=0) == wall.replace(tzinfo=None):
                runs.add(second)
    return sorted(runs)


def _given(spec: Spec | None) -> Spec:
    if spec is None:
        return "*"
    if isinstance(spec, (set, frozenset)) and all(isinstance(number, int) for number in spec):
        return sorted(spec)
    return spec if isinstance(spec, (int, str)) or not isinstance(spec, Iterable) else list(spec)


def _shown(spec: Spec) -> str:
    return str(spec) if isinstance(spec, (int, str)) else ",".join(map(str, spec))
