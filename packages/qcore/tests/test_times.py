"""Zones, ISO 8601, rates, texts for durations."""

import pickle
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcore import times
from qcore.errors import ImproperlyConfigured

OSLO = ZoneInfo("Europe/Oslo")


def test_zone_of_none_is_utc():
    assert times.get_zone(None) is UTC


def test_zones_are_found_by_name():
    assert times.get_zone("Europe/Oslo") == OSLO
    assert times.get_zone("utc") is UTC
    assert times.get_zone("local") is times.LOCAL
    assert times.get_zone(OSLO) is OSLO


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd"])
def test_unknown_zones_are_refused(name):
    with pytest.raises(ImproperlyConfigured, match="time zone"):
        times.get_zone(name)


def test_naive_times_become_aware():
    moment = datetime(2026, 7, 1, 12)
    assert times.make_aware(moment).tzinfo is UTC
    assert times.to_utc(moment, "Europe/Oslo") == datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert times.to_zone(moment, "Europe/Oslo").hour == 14


def test_aware_times_are_left_alone():
    moment = datetime(2026, 7, 1, tzinfo=OSLO)
    assert times.make_aware(moment, "UTC") is moment


def test_the_local_zone_agrees_with_the_system():
    moment = datetime(2026, 1, 1, 12)
    assert moment.replace(tzinfo=times.LOCAL).timestamp() == moment.timestamp()
    assert datetime.fromtimestamp(1e9, times.LOCAL).replace(tzinfo=None) == datetime.fromtimestamp(1e9)


def test_the_local_zone_pickles():
    assert type(pickle.loads(pickle.dumps(times.LOCAL))) is type(times.LOCAL)


@given(st.datetimes(timezones=st.just(UTC)))
def test_iso_text_comes_back(moment):
    assert times.parse_iso8601(moment.isoformat()) == moment


def test_iso_text_with_z_is_utc():
    assert times.parse_iso8601("2026-01-01T00:00:00Z") == datetime(2026, 1, 1, tzinfo=UTC)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="ISO 8601"):
        times.parse_iso8601("tomorrow")


def test_maybe_iso8601_passes_datetimes_and_none():
    assert times.maybe_iso8601(None) is None
    moment = datetime(2026, 1, 1)
    assert times.maybe_iso8601(moment) is moment
    assert times.maybe_iso8601("2026-01-01") == moment


def test_seconds_of_numbers_and_timedeltas():
    assert times.to_seconds(timedelta(minutes=1)) == 60
    assert times.to_seconds(5) == 5
    assert times.to_seconds(None) is None
    assert times.to_timedelta(5) == timedelta(seconds=5)
    assert times.to_timedelta(None) is None


@given(st.floats(min_value=0, max_value=4e9))
def test_timestamps_come_back(seconds):
    assert times.timestamp(times.from_timestamp(seconds)) == pytest.approx(seconds, abs=1e-5)


def test_remaining_time_is_negative_when_over():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert times.remaining(now, timedelta(seconds=10), now + timedelta(seconds=4)) == timedelta(seconds=6)
    assert times.remaining(now, timedelta(0), now + timedelta(seconds=1)) < timedelta(0)


@pytest.mark.parametrize(
    ("rate", "per_second"),
    [
        ("10/s", 10),
        ("10/m", 10 / 60),
        ("36/h", 0.01),
        ("0.5/s", 0.5),
        (" 5 / m ", 5 / 60),
        ("7", 7),
        (3, 3),
        (0, 0),
        (None, 0),
        ("", 0),
    ],
)
def test_rates(rate, per_second):
    assert times.parse_rate(rate) == pytest.approx(per_second)


@pytest.mark.parametrize("rate", ["10/d", "fast", "10/", -1, True, "1e3/s", "-5/m"])
def test_wrong_rates_are_refused(rate):
    with pytest.raises(ValueError, match="rate limit"):
        times.parse_rate(rate)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3600, "1.00 hour"), (61, "1.02 minutes"), (90000, "1.04 days"), (1, "1.00 second"), (0.4, "now")],
)
def test_durations_as_text(seconds, text):
    assert times.humanize_seconds(seconds) == text


def test_durations_with_prefix():
    assert times.humanize_seconds(60, prefix="in", sep=" ") == "in 1.00 minute"
    assert times.humanize_seconds(0.25, microseconds=True) == "0.25 seconds"


def test_time_since():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert times.humanize_since(now - timedelta(minutes=5), now) == "5.00 minutes ago"
    assert times.humanize_since(now, now) == "just now"


def test_timestamps_of_senders_elsewhere_are_adjusted():
    here = times.utc_offset_hours()
    assert times.adjust_timestamp(1000.0, here) == 1000.0
    assert times.adjust_timestamp(10_000.0, here + 1.5) == 10_000.0 - 5400


def test_utc_now_is_aware():
    assert times.utc_now().tzinfo is timezone.utc  # noqa: UP017 - the same object under its other name
