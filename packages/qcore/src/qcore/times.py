"""Clock, zones, ISO 8601 and durations.

Two clocks: `utc_now`/`time.time` is the wall clock, for what is stored or sent; `time.monotonic` measures
durations. Whatever leaves this module is timezone-aware.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .errors import ImproperlyConfigured

_RATE_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:/\s*([smh])\s*)?\Z")
_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


def utc_now() -> datetime:
    """The current time in UTC, aware."""
    return datetime.now(UTC)


class _LocalZone(tzinfo):
    """The zone of the system, following its daylight saving time."""

    def _aware(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=None).astimezone()

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return (self._aware(moment) if moment else datetime.now().astimezone()).utcoffset() or timedelta(0)

    def dst(self, moment: datetime | None) -> timedelta:
        if moment is None:
            return timedelta(0)
        is_dst = time.localtime(self._aware(moment).timestamp()).tm_isdst > 0
        return timedelta(seconds=time.timezone - time.altzone) if is_dst else timedelta(0)

    def tzname(self, moment: datetime | None) -> str:
        return (self._aware(moment) if moment else datetime.now().astimezone()).tzname() or "local"

    def fromutc(self, moment: datetime) -> datetime:
        local = moment.replace(tzinfo=UTC).astimezone()
        return local.replace(tzinfo=self)

    def __repr__(self) -> str:
        return "<local zone>"

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return _LocalZone, ()


LOCAL: tzinfo = _LocalZone()


@lru_cache(maxsize=128)
def _named_zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC
    if name == "local":
        return LOCAL
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ImproperlyConfigured(
            f"unknown time zone {name!r}: give a name of the IANA data base such as 'Europe/Oslo', or 'UTC' "
            "(on systems without zone data, pip install tzdata)"
        ) from exc


def get_zone(zone: str | tzinfo | None) -> tzinfo:
    """The zone called `zone`; None is UTC, `local` the system's.

    Raises:
        ImproperlyConfigured: there is no such zone.
    """
    if zone is None:
        return UTC
    return _named_zone(zone) if isinstance(zone, str) else zone


def make_aware(moment: datetime, zone: str | tzinfo | None = None) -> datetime:
    """`moment` itself when aware, else understood as wall time in `zone` (UTC when None)."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=get_zone(zone))


def to_utc(moment: datetime, zone: str | tzinfo | None = None) -> datetime:
    """`moment` in UTC; a naive one is understood as wall time in `zone` (UTC when None)."""
    return make_aware(moment, zone).astimezone(UTC)


def to_zone(moment: datetime, zone: str | tzinfo | None) -> datetime:
    """`moment` in `zone`; a naive one is understood as UTC."""
    return make_aware(moment).astimezone(get_zone(zone))


def timestamp(moment: datetime) -> float:
    """Epoch seconds of `moment`; a naive one is understood as UTC."""
    return make_aware(moment).timestamp()


def from_timestamp(seconds: float, zone: str | tzinfo | None = None) -> datetime:
    """The aware time of epoch `seconds`, in `zone` (UTC when None)."""
    return datetime.fromtimestamp(seconds, get_zone(zone))


def parse_iso8601(text: str) -> datetime:
    """The datetime that ISO 8601 `text` tells: naive when the text has no offset.

    Raises:
        ValueError: `text` is not ISO 8601.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(f"not an ISO 8601 time: {text!r}") from exc


def maybe_iso8601(value: datetime | str | None) -> datetime | None:
    """A datetime from a datetime, ISO 8601 text or None."""
    if value is None or isinstance(value, datetime):
        return value
    return parse_iso8601(value)


def to_seconds(value: float | timedelta | None) -> float | None:
    """Seconds of a number or timedelta; None stays None."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def to_timedelta(value: float | timedelta | None) -> timedelta | None:
    """The timedelta of a number of seconds or a timedelta; None stays None."""
    return timedelta(seconds=value) if isinstance(value, (int, float)) else value


def eta_from_countdown(seconds: float, now: datetime | None = None) -> datetime:
    """The time `seconds` after `now`."""
    return (now or utc_now()) + timedelta(seconds=seconds)


def remaining(start: datetime, ends_in: timedelta, now: datetime | None = None) -> timedelta:
    """What is left at `now` of a span that began at `start` and lasts `ends_in`; negative when it is over."""
    return make_aware(start) + ends_in - make_aware(now or utc_now())


def parse_rate(rate: str | float | None) -> float:
    """Tasks per second of `rate`: a number, or text such as `10/s`, `200/m`, `5/h`; 0.0 means no limit.

    Raises:
        ValueError: `rate` has another form.
    """
    if rate is None or rate == "":
        return 0.0
    if isinstance(rate, (int, float)) and not isinstance(rate, bool):
        if rate >= 0:
            return float(rate)
    elif isinstance(rate, str) and (match := _RATE.match(rate)):
        return float(match[1]) / _RATE_UNITS[match[2] or "s"]
    raise ValueError(
        f"invalid rate limit {rate!r}: give a number per second, or text such as '10/s', '200/m' or '5/h'"
    )


def humanize_seconds(
    seconds: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False
) -> str:
    """`seconds` in the largest fitting unit: `2.00 hours`, `1.00 minute`; `now` when nothing is left."""
    seconds = float(format(float(seconds), ".5g"))
    for unit, size in _UNITS:
        if seconds >= size:
            amount = seconds / size
            return f"{prefix}{sep}{amount:.2f} {unit}{'' if amount == 1 else 's'}"
    if microseconds and seconds > 0.0:
        return f"{prefix}{sep}{seconds:.2f} seconds"
    return now


def humanize_since(moment: datetime, now: datetime | None = None) -> str:
    """How long ago `moment` was: `5.00 minutes ago`, or `just now`."""
    elapsed = (make_aware(now or utc_now()) - make_aware(moment)).total_seconds()
    text = humanize_seconds(elapsed, now="")
    return f"{text} ago" if text else "just now"


def utc_offset_hours() -> float:
    """Hours from local time to UTC, as events carry it: positive west of Greenwich."""
    offset = datetime.now().astimezone().utcoffset() or timedelta(0)
    return -offset.total_seconds() / 3600


def adjust_timestamp(seconds: float, their_offset_hours: float) -> float:
    """The timestamp of an event, moved from its sender's UTC offset to ours."""
    return seconds - (their_offset_hours - utc_offset_hours()) * 3600


def system_zone_name() -> str | None:
    """Name of the zone in the environment variable `TZ`, None when it is unset."""
    return os.environ.get("TZ") or None
