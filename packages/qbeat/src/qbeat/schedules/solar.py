"""By the sun: dawn, sunrise, noon, sunset and dusk at a place on Earth.

The events are computed by the library ephem, in UTC; the time zone of the app has no part in them. On a day
on which an event does not happen, as sunrise in the polar night, nothing runs; solar noon happens every day.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from attrs import frozen

from qbeat.schedules.base import BaseSchedule, ScheduleState
from qcore.errors import MissingPackageError
from qcore.times import make_aware

DAYS_SEARCHED = 366


@frozen
class SolarEvent:
    """How ephem finds an event: its method, the sun's height in degrees, and whether its centre counts."""

    method: str
    horizon: str
    use_center: bool


EVENTS = {
    "dawn_astronomical": SolarEvent("next_rising", "-18", True),
    "dawn_nautical": SolarEvent("next_rising", "-12", True),
    "dawn_civil": SolarEvent("next_rising", "-6", True),
    # Half a degree and four minutes of arc: what the air bends at the horizon. The upper edge counts.
    "sunrise": SolarEvent("next_rising", "-0:34", False),
    "solar_noon": SolarEvent("next_transit", "0", False),
    "sunset": SolarEvent("next_setting", "-0:34", False),
    "dusk_civil": SolarEvent("next_setting", "-6", True),
    "dusk_nautical": SolarEvent("next_setting", "-12", True),
    "dusk_astronomical": SolarEvent("next_setting", "-18", True),
}


class solar(BaseSchedule):
    """Runs at every `event` of the sun.

    Args:
        event: One of `EVENTS`.
        lat: Latitude in degrees, north positive.
        lon: Longitude in degrees, east positive.
        nowfun, app: As `BaseSchedule`.

    Raises:
        ValueError: There is no such event or place.
        MissingPackageError: The library ephem is not installed.
    """

    def __init__(
        self,
        event: str,
        lat: float,
        lon: float,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        super().__init__(nowfun, app)
        if event not in EVENTS:
            raise ValueError(f"the sun has no event {event!r}; it has {', '.join(sorted(EVENTS))}")
        if not -90 <= lat <= 90:
            raise ValueError(f"a latitude is -90 (south) to 90 (north), not {lat}")
        if not -180 <= lon <= 180:
            raise ValueError(f"a longitude is -180 (west) to 180 (east), not {lon}")
        _ephem()
        self.event = event
        self.lat = lat
        self.lon = lon

    def next_run(self, after: datetime) -> datetime | None:
        """The first such event later than `after`, in UTC; None when there is none for a year."""
        ephem = _ephem()
        event = EVENTS[self.event]
        place, sun = self._place(ephem, event), ephem.Sun()
        start = ephem.Date(make_aware(after).astimezone(UTC).replace(tzinfo=None))
        options = {"use_center": True} if event.use_center else {}
        for _ in range(DAYS_SEARCHED):
            try:
                found = getattr(place, event.method)(sun, start=start, **options)
            except ephem.CircumpolarError:
                start = place.next_antitransit(sun, start=start)
            else:
                return _moment(found)
        return None

    def _place(self, ephem: Any, event: SolarEvent) -> Any:
        place = ephem.Observer()
        place.lat, place.lon = str(self.lat), str(self.lon)
        place.elevation, place.pressure = 0, 0
        place.horizon = event.horizon
        return place

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Time left until the next event; negative when it is overdue, a year when there is none."""
        found = self.next_run(last_run_at)
        return found - self.now().astimezone(UTC) if found else timedelta(days=DAYS_SEARCHED)

    def is_due(self, last_run_at: datetime) -> ScheduleState:
        """Whether a run is due, and seconds until the next one."""
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        if remaining > 0:
            return ScheduleState(False, remaining)
        return ScheduleState(True, max(self.remaining_estimate(self.now()).total_seconds(), 0.0))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, solar):
            return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon)
        return NotImplemented

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"


def _moment(found: Any) -> datetime:
    moment: datetime = found.datetime()
    return moment.replace(tzinfo=UTC)


def _ephem() -> Any:
    # Optional, and only solar schedules need it.
    try:
        return import_module("ephem")
    except ImportError as exc:
        raise MissingPackageError("solar schedules", "qbeat[solar]") from exc
