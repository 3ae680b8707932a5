"""Schedules from what settings hold, and to and from plain values that JSON can carry."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, cast

from qbeat.schedules.base import BaseSchedule
from qbeat.schedules.clocked import clocked
from qbeat.schedules.cron import crontab
from qbeat.schedules.interval import schedule
from qbeat.schedules.solar import solar


def maybe_schedule(
    value: float | timedelta | BaseSchedule | Any, relative: bool = False, app: Any = None
) -> BaseSchedule:
    """A schedule from a number of seconds, a timedelta, or a schedule, bound to `app`.

    Objects that merely behave like a schedule (`is_due`) are taken as they are.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, (int, float, timedelta)) and not isinstance(value, bool):
        return schedule(value, relative=relative, app=app)
    if isinstance(value, BaseSchedule):
        return value.bind(app)
    if callable(getattr(value, "is_due", None)):
        return cast("BaseSchedule", value)
    raise ValueError(f"a schedule is seconds, a timedelta, crontab(…), solar(…) or clocked(…), not {value!r}")


def to_dict(value: BaseSchedule) -> dict[str, Any]:
    """Plain values that `from_dict` turns into an equal schedule.

    Raises:
        TypeError: It is a schedule of a class of your own.
    """
    zone = {"tz": str(value._tz)} if getattr(value, "_tz", None) is not None else {}
    if type(value) is schedule:
        return {"type": "interval", "seconds": value.seconds, "relative": value.relative, **zone}
    if type(value) is crontab:
        deadline = value.starting_deadline
        extra = {} if deadline is None else {"starting_deadline": deadline}
        return {"type": "crontab", **value.fields(), **extra, **zone}
    if type(value) is solar:
        return {"type": "solar", "event": value.event, "lat": value.lat, "lon": value.lon}
    if type(value) is clocked:
        return {"type": "clocked", "clocked_time": value.clocked_time.isoformat(), **zone}
    raise TypeError(f"{type(value).__name__} has no form in plain values")


def from_dict(values: dict[str, Any]) -> BaseSchedule:
    """The schedule that `to_dict` wrote.

    Raises:
        ValueError: The values make no sense.
    """
    options = dict(values)
    kind = options.pop("type", None)
    try:
        if kind == "interval":
            return schedule(options.pop("seconds"), **options)
        if kind == "crontab":
            return crontab(**options)
        if kind == "solar":
            return solar(**options)
        if kind == "clocked":
            return clocked(datetime.fromisoformat(options.pop("clocked_time")), **options)
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not the values of a schedule of type {kind!r}: {exc!r}") from exc
    raise ValueError(f"no schedule is of type {kind!r}")
