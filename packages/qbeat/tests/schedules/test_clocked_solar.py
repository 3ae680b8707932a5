"""Once at a time, and by the sun."""

from __future__ import annotations

import pickle
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qbeat import clocked, solar
from qbeat.schedules import NEVER, from_dict, to_dict
from qbeat.schedules.solar import EVENTS
from qcore.errors import MissingPackageError

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
MELBOURNE = (-37.81753, 144.96715)
TROMSO = (69.65, 18.96)


def test_clocked_waits_runs_once_and_never_again() -> None:
    early = NOON - timedelta(hours=1)
    assert clocked(NOON, nowfun=lambda: NOON - timedelta(minutes=1)).is_due(early) == (False, 60.0)
    assert clocked(NOON, nowfun=lambda: NOON).is_due(early) == (True, NEVER)
    assert clocked(NOON, nowfun=lambda: NOON + timedelta(days=3)).is_due(early) == (True, NEVER)
    assert clocked(NOON, nowfun=lambda: NOON + timedelta(days=3)).is_due(NOON) == (False, NEVER)
    assert clocked(NOON, nowfun=lambda: NOON).remaining_estimate(early) == timedelta(0)


def test_clocked_understands_naive_times_in_its_zone() -> None:
    assert clocked(datetime(2024, 1, 1, 21), tz="Asia/Tokyo").at() == NOON
    assert clocked(datetime(2024, 1, 1, 12)) == clocked(NOON)
    assert clocked(NOON) != clocked(NOON + timedelta(1))


def test_clocked_values() -> None:
    assert repr(clocked(NOON)) == "<clocked: 2024-01-01T12:00:00+00:00>"
    assert pickle.loads(pickle.dumps(clocked(NOON))) == clocked(NOON)
    assert from_dict(to_dict(clocked(NOON))) == clocked(NOON)


def test_the_nine_events() -> None:
    assert sorted(EVENTS) == [
        "dawn_astronomical",
        "dawn_civil",
        "dawn_nautical",
        "dusk_astronomical",
        "dusk_civil",
        "dusk_nautical",
        "solar_noon",
        "sunrise",
        "sunset",
    ]


def test_a_day_in_melbourne() -> None:
    """Times of 1 January 2024 as almanacs have them, to the minute."""
    local = datetime(2023, 12, 31, 13, tzinfo=UTC)  # midnight there
    order = ("dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon")
    later = ("sunset", "dusk_civil", "dusk_nautical", "dusk_astronomical")
    found = {event: solar(event, *MELBOURNE).next_run(local) for event in (*order, *later)}
    moments = list(found.values())
    assert moments == sorted(moments)  # type: ignore[type-var]
    sunrise, noon = found["sunrise"], found["solar_noon"]
    sunset = solar("sunset", *MELBOURNE).next_run(local)
    assert abs(sunrise - datetime(2023, 12, 31, 19, 0, tzinfo=UTC)) < timedelta(minutes=2)
    assert abs(noon - datetime(2024, 1, 1, 2, 23, tzinfo=UTC)) < timedelta(minutes=2)
    assert abs(sunset - datetime(2024, 1, 1, 9, 45, tzinfo=UTC)) < timedelta(minutes=2)


def test_due_at_the_event_and_next_a_day_later() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    sunset = solar("sunset", *MELBOURNE).next_run(start)
    assert sunset is not None
    early = solar("sunset", *MELBOURNE, nowfun=lambda: sunset - timedelta(seconds=60))
    assert early.is_due(start) == (False, pytest.approx(60.0))
    late = solar("sunset", *MELBOURNE, nowfun=lambda: sunset + timedelta(seconds=1))
    due, following = late.is_due(start)
    assert due
    assert following == pytest.approx(86400, abs=120)


def test_no_sunrise_in_the_polar_night() -> None:
    """In Tromso the sun sets on 27 November and is back in the middle of January."""
    december = datetime(2024, 12, 1, tzinfo=UTC)
    sunrise = solar("sunrise", *TROMSO).next_run(december)
    assert sunrise is not None
    assert datetime(2025, 1, 10, tzinfo=UTC) < sunrise < datetime(2025, 1, 20, tzinfo=UTC)
    waiting = solar("sunrise", *TROMSO, nowfun=lambda: december + timedelta(days=1))
    assert not waiting.is_due(december).is_due


def test_solar_noon_happens_in_the_polar_night() -> None:
    december = datetime(2024, 12, 10, tzinfo=UTC)
    noon = solar("solar_noon", *TROMSO).next_run(december)
    assert noon is not None
    assert noon - december < timedelta(days=1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("noon", 0, 0), "no event 'noon'"),
        (("sunset", 91, 0), "latitude"),
        (("sunset", -91, 0), "latitude"),
        (("sunset", 0, 181), "longitude"),
        (("sunset", 0, -181), "longitude"),
    ],
)
def test_bad_arguments_are_named(arguments: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        solar(*arguments)


def test_without_the_library_the_text_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ephem", None)
    with pytest.raises(MissingPackageError, match=r"pip install qbeat\[solar\]"):
        solar("sunset", 0, 0)


def test_solar_values() -> None:
    sunset = solar("sunset", *MELBOURNE)
    assert repr(sunset) == "<solar: sunset at latitude -37.81753, longitude: 144.96715>"
    assert sunset == pickle.loads(pickle.dumps(sunset)) == from_dict(to_dict(sunset))
    assert sunset != solar("sunrise", *MELBOURNE)
