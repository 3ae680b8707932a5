"""Crontab: the documented forms, and the next run against a search minute by minute."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qbeat import crontab
from qbeat.errors import ParseException
from qbeat.schedules import ScheduleState, crontab_parser, from_dict, to_dict

MINUTE = timedelta(minutes=1)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def runs(schedule: crontab, start: datetime, count: int) -> list[str]:
    """The next runs in the schedule's zone."""
    found, moment = [], start
    for _ in range(count):
        moment = schedule.next_run(moment)
        found.append(f"{moment.astimezone(schedule.tz):%Y-%m-%d %H:%M}")
    return found


# -- fields


@pytest.mark.parametrize(
    ("field", "spec", "expected"),
    [
        ("hour", "*/3", {0, 3, 6, 9, 12, 15, 18, 21}),
        ("hour", "0,3,6,9,12,15,18,21", {0, 3, 6, 9, 12, 15, 18, 21}),
        ("minute", "*/15", {0, 15, 30, 45}),
        ("minute", "1,13,30-45,50-59/2", {1, 13, *range(30, 46), 50, 52, 54, 56, 58}),
        ("hour", "*/2,*/3", set(range(24)) - {1, 5, 7, 11, 13, 17, 19, 23}),
        ("hour", "*/5", {0, 5, 10, 15, 20}),
        ("hour", "*/3,8-17", {0, 3, 6, 18, 21, *range(8, 18)}),
        ("hour", "22-2", {22, 23, 0, 1, 2}),
        ("hour", " 1 , 2 - 4 ", {1, 2, 3, 4}),
        ("day_of_week", "sunday", {0}),
        ("day_of_week", "sun", {0}),
        ("day_of_week", "thu,fri", {4, 5}),
        ("day_of_week", "thurs", {4}),
        ("day_of_week", "Mon-Fri", {1, 2, 3, 4, 5}),
        ("day_of_week", "fri-mon", {5, 6, 0, 1}),
        ("day_of_week", "*/2", {0, 2, 4, 6}),
        ("day_of_week", 1, {1}),
        ("day_of_month", "2-30/3", {2, 5, 8, 11, 14, 17, 20, 23, 26, 29}),
        ("day_of_month", "2-30/2", set(range(2, 31, 2))),
        ("day_of_month", "1-7,15-21", {*range(1, 8), *range(15, 22)}),
        ("day_of_month", "*/3", set(range(1, 32, 3))),
        ("month_of_year", "*/3", {1, 4, 7, 10}),
        ("month_of_year", "2-12/2", {2, 4, 6, 8, 10, 12}),
        ("month_of_year", "jan,december", {1, 12}),
        ("month_of_year", [5, 6], {5, 6}),
        ("minute", {0, 30}, {0, 30}),
        ("minute", None, set(range(60))),
    ],
)
def test_forms_of_a_field(field: str, spec: Any, expected: set[int]) -> None:
    assert getattr(crontab(**{field: spec}), field) == expected


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("minute", 60),
        ("minute", -1),
        ("minute", "60"),
        ("minute", "-5"),
        ("minute", "*/0"),
        ("minute", "*/"),
        ("minute", "*/x"),
        ("minute", "5/15"),
        ("minute", "1,,2"),
        ("minute", ""),
        ("minute", "a-b"),
        ("minute", "1-"),
        ("minute", "mon"),
        ("minute", []),
        ("hour", 24),
        ("day_of_week", 7),
        ("day_of_week", "su"),
        ("day_of_week", "march"),
        ("day_of_month", 0),
        ("day_of_month", 32),
        ("month_of_year", 13),
        ("month_of_year", "monday"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(field: str, spec: Any) -> None:
    with pytest.raises(ParseException, match=field):
        crontab(**{field: spec})


@pytest.mark.parametrize("spec", [1.5, True, [1.5], ["1"], object()])
def test_a_field_of_another_type_is_refused(spec: Any) -> None:
    with pytest.raises(TypeError, match="minute"):
        crontab(minute=spec)


@pytest.mark.parametrize(("day", "month"), [("30", "2"), ("31", "4,6"), ("31", 2)])
def test_days_that_do_not_exist_are_refused(day: str, month: Any) -> None:
    with pytest.raises(ValueError, match="never runs"):
        crontab(0, 0, day_of_month=day, month_of_year=month)


def test_parser_for_any_range() -> None:
    assert crontab_parser(60).parse("*/15") == {0, 15, 30, 45}
    assert crontab_parser(7).parse("mon-wed") == {1, 2, 3}
    assert crontab_parser(12, 1).parse("*/2") == {1, 3, 5, 7, 9, 11}
    assert crontab_parser(31, 1).parse("31") == {31}
    with pytest.raises(ParseException):
        crontab_parser(24).parse("24")


# -- the documented examples


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (crontab(), ["2024-01-01 00:01", "2024-01-01 00:02"]),
        (crontab(minute=0, hour=0), ["2024-01-02 00:00", "2024-01-03 00:00"]),
        (crontab(minute=0, hour="*/3"), ["2024-01-01 03:00", "2024-01-01 06:00"]),
        (crontab(hour=7, minute=30, day_of_week=1), ["2024-01-01 07:30", "2024-01-08 07:30"]),
        (crontab(day_of_week="sunday"), ["2024-01-07 00:00", "2024-01-07 00:01"]),
        (
            crontab(minute="*/10", hour="3,17,22", day_of_week="thu,fri"),
            ["2024-01-04 03:00", "2024-01-04 03:10"],
        ),
        (crontab(0, 0, day_of_month="2"), ["2024-01-02 00:00", "2024-02-02 00:00"]),
        (crontab(0, 0, day_of_month="11", month_of_year="5"), ["2024-05-11 00:00", "2025-05-11 00:00"]),
        (crontab(0, 0, 1, month_of_year="*/3"), ["2024-01-08 00:00", "2024-01-15 00:00"]),
        (crontab(0, 0, day_of_month=31), ["2024-01-31 00:00", "2024-03-31 00:00"]),
        (crontab(0, 0, day_of_month=29, month_of_year=2), ["2024-02-29 00:00", "2028-02-29 00:00"]),
        (crontab(0, 0, 1, 29, 2), ["2044-02-29 00:00", "2072-02-29 00:00"]),
        (crontab(0, 0, day_of_week=1, day_of_month="1-7"), ["2024-02-05 00:00", "2024-03-04 00:00"]),
    ],
)
def test_documented_examples(schedule: crontab, expected: list[str]) -> None:
    assert runs(schedule, at("2024-01-01 00:00"), 2) == expected


def test_from_string_has_the_order_of_a_crontab_line() -> None:
    assert crontab.from_string("1 2 3 4 fri") == crontab(1, 2, "fri", 3, 4)
    assert crontab.from_string("  * *\t* * *  ") == crontab()
    assert crontab.from_string("0 4 * * *", tz="Europe/Oslo") == crontab(0, 4, tz="Europe/Oslo")
    with pytest.raises(ValueError, match="five fields"):
        crontab.from_string("* * * *")


# -- is_due


class Clock:
    """A settable time."""

    def __init__(self, text: str, zone: str = "UTC") -> None:
        self.now = at(text, zone)

    def __call__(self) -> datetime:
        return self.now


def test_not_due_before_its_time() -> None:
    schedule = crontab(minute=30, hour=4, nowfun=Clock("2024-01-01 04:29:59"))
    assert schedule.is_due(at("2023-12-31 04:30")) == ScheduleState(False, 1.0)
    assert schedule.remaining_estimate(at("2023-12-31 04:30")) == timedelta(seconds=1)


def test_due_at_its_time_and_next_a_day_later() -> None:
    schedule = crontab(minute=30, hour=4, nowfun=Clock("2024-01-01 04:30:00"))
    state = schedule.is_due(at("2023-12-31 04:30"))
    assert state == (True, 86400.0)
    assert state.is_due
    assert state.next == 86400.0


def test_a_missed_run_is_due_at_once() -> None:
    schedule = crontab(minute=0, hour=0, nowfun=Clock("2024-01-05 10:00"))
    assert schedule.is_due(at("2024-01-01 00:00")) == (True, 14 * 3600)
    assert schedule.remaining_estimate(at("2024-01-01 00:00")) == -timedelta(days=3, hours=10)


@pytest.mark.parametrize(
    ("deadline", "now", "due"),
    [
        (None, "2024-01-01 09:00", True),
        (3600, "2024-01-01 04:59", True),
        (3600, "2024-01-01 05:00", True),
        (3600, "2024-01-01 05:01", False),
        (0, "2024-01-01 04:00", True),
    ],
)
def test_starting_deadline(deadline: float | None, now: str, due: bool) -> None:
    last = at("2023-12-30 04:00")
    own = crontab(0, 4, nowfun=Clock(now), starting_deadline=deadline)
    app = SimpleNamespace(conf=SimpleNamespace(beat_cron_starting_deadline=deadline), timezone="UTC")
    of_the_app = crontab(0, 4, nowfun=Clock(now), app=app)
    following = (at("2024-01-02 04:00") - at(now)).total_seconds()
    assert own.is_due(last) == of_the_app.is_due(last) == (due, following)


def test_remaining_delta_adds_up() -> None:
    clock = Clock("2024-01-01 03:00")
    schedule = crontab(0, 4, nowfun=clock)
    start, delta, now = schedule.remaining_delta(at("2023-12-31 12:00"))
    assert start + delta == at("2024-01-01 04:00")
    assert now == clock.now
    start, delta, _ = schedule.remaining_delta(at("2023-12-31 12:00"), tz="Asia/Tokyo")
    assert start + delta == at("2024-01-01 04:00", "Asia/Tokyo")


def test_naive_times_are_utc() -> None:
    schedule = crontab(0, 4, tz="Asia/Tokyo", nowfun=lambda: datetime(2024, 1, 1, 18, 59))
    assert schedule.is_due(datetime(2023, 12, 31, 19)) == (False, 60.0)


def test_the_zone_of_the_app_counts_unless_there_is_an_own_one() -> None:
    app = SimpleNamespace(timezone="Europe/London", now=lambda: at("2024-07-01 00:00"))
    schedule = crontab(0, 4).bind(app)
    assert schedule.next_run(at("2024-07-01 00:00")) == at("2024-07-01 03:00")
    assert crontab(0, 4, tz="Asia/Tokyo").bind(app).next_run(at("2024-07-01 00:00")) == at("2024-07-01 19:00")


def test_bind_leaves_the_original_alone() -> None:
    app: Any = SimpleNamespace(timezone="UTC")
    clock = Clock("2024-01-01")
    schedule = crontab(nowfun=clock)
    bound = schedule.bind(app)
    assert (schedule.app, bound.app, bound.nowfun) == (None, app, clock)
    assert bound.bind(SimpleNamespace()) is bound


# -- daylight saving time


def test_a_skipped_time_runs_as_much_later() -> None:
    schedule = crontab(30, 2, tz="Europe/Berlin")
    assert runs(schedule, at("2024-03-30 12:00"), 2) == ["2024-03-31 03:30", "2024-04-01 02:30"]


def test_a_skipped_time_that_meets_a_later_one_runs_once() -> None:
    schedule = crontab(30, "2,3", tz="Europe/Berlin")
    assert runs(schedule, at("2024-03-30 12:00"), 2) == ["2024-03-31 03:30", "2024-04-01 02:30"]


def test_a_repeated_time_runs_once() -> None:
    schedule = crontab(30, 2, tz="Europe/Berlin")
    first = schedule.next_run(at("2024-10-26 12:00"))
    assert first == at("2024-10-27 00:30")
    assert schedule.next_run(first) == at("2024-10-28 01:30")


def test_every_hour_runs_by_elapsed_time() -> None:
    schedule = crontab(0, tz="Europe/Berlin")
    for start in (at("2024-10-26 22:00"), at("2024-03-30 22:00")):
        moment = start
        for _ in range(8):
            following = schedule.next_run(moment)
            assert following - moment == timedelta(hours=1)
            moment = following


def test_every_ten_minutes_never_pauses_or_doubles() -> None:
    schedule = crontab("*/10", tz="America/New_York")
    moment = at("2024-11-03 03:00")
    for _ in range(60):
        following = schedule.next_run(moment)
        assert following - moment == timedelta(minutes=10)
        moment = following


def test_a_midnight_that_does_not_exist() -> None:
    assert runs(crontab(0, 0, tz="Africa/Cairo"), at("2024-04-24 23:00"), 2) == [
        "2024-04-26 01:00",
        "2024-04-27 00:00",
    ]


def test_half_an_hour_of_daylight_saving() -> None:
    schedule = crontab(15, 2, tz="Australia/Lord_Howe")
    assert runs(schedule, at("2024-10-05 00:00"), 1) == ["2024-10-06 02:45"]


def test_a_day_that_does_not_exist_at_all() -> None:
    schedule = crontab(0, 12, tz="Pacific/Apia")
    assert runs(schedule, at("2011-12-29 23:00"), 2) == ["2011-12-31 12:00", "2012-01-01 12:00"]


def brute_force(schedule: crontab, start: datetime, minutes: int) -> list[datetime]:
    """Every run in `minutes` minutes after `start`, found by looking at each minute of UTC."""
    hourly = len(schedule.hour) == 24
    shown: set[datetime] = set()
    found: set[datetime] = set()
    moment = start - timedelta(days=2)
    expected = None
    while moment <= start + minutes * MINUTE:
        wall = moment.astimezone(schedule.tz).replace(tzinfo=None)
        while expected is not None and expected < wall:  # the clock skipped this minute
            if matches(schedule, expected):
                found.add(moment + _after_skip(expected, moment, schedule))
            expected += MINUTE
        if matches(schedule, wall) and (hourly or wall not in shown):
            found.add(moment)
        shown.add(wall)
        expected = wall + MINUTE
        moment += MINUTE
    return sorted(run for run in found if start < run <= start + minutes * MINUTE)


def _after_skip(skipped: datetime, moment: datetime, schedule: crontab) -> timedelta:
    """How long after the skip a skipped time runs: as long as it lies after the skip's beginning."""
    before = (moment - MINUTE).astimezone(schedule.tz).replace(tzinfo=None)
    return skipped - before - MINUTE


def matches(schedule: crontab, wall: datetime) -> bool:
    return (
        wall.minute in schedule.minute
        and wall.hour in schedule.hour
        and wall.isoweekday() % 7 in schedule.day_of_week
        and wall.day in schedule.day_of_month
        and wall.month in schedule.month_of_year
    )


def subsets(low: int, high: int) -> st.SearchStrategy[set[int]]:
    everything = st.just(set(range(low, high + 1)))
    return st.one_of(everything, st.sets(st.integers(low, high), min_size=1, max_size=4))


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Beirut",
    "Pacific/Apia",
    "Europe/Dublin",
]
# Around changes of the clock in one zone or the other, and anywhere.
STARTS = st.one_of(
    st.sampled_from(
        [
            "2024-03-30T12:00",
            "2024-10-26T12:00",
            "2024-11-02T20:00",
            "2024-03-09T20:00",
            "2018-11-03T12:00",
            "2018-02-17T12:00",
            "2024-10-05T06:00",
            "2024-04-06T06:00",
            "2024-04-25T12:00",
            "2024-10-31T12:00",
            "2023-03-19T00:00",
            "2011-12-29T20:00",
        ]
    ).map(lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC)),
    st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1)).map(
        lambda moment: moment.replace(second=0, microsecond=0, tzinfo=UTC)
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    minute=subsets(0, 59),
    hour=subsets(0, 23),
    day_of_week=subsets(0, 6),
    zone=st.sampled_from(ZONES),
    start=STARTS,
)
@example(
    minute={30},
    hour={2},
    day_of_week=set(range(7)),
    zone="Europe/Berlin",
    start=datetime(2024, 3, 30, 12, tzinfo=UTC),
)
def test_next_run_agrees_with_looking_at_every_minute(
    minute: set[int], hour: set[int], day_of_week: set[int], zone: str, start: datetime
) -> None:
    schedule = crontab(minute, hour, day_of_week, tz=zone)
    window = 36 * 60
    expected = brute_force(schedule, start, window)
    found, moment = [], start
    while len(found) <= len(expected):
        moment = schedule.next_run(moment)
        if moment > start + window * MINUTE:
            break
        found.append(moment)
    assert found == expected


@settings(max_examples=100, deadline=None)
@given(
    day_of_month=subsets(1, 31),
    month=subsets(1, 12),
    day_of_week=subsets(0, 6),
    start=st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)),
)
def test_next_day_agrees_with_looking_at_every_day(
    day_of_month: set[int], month: set[int], day_of_week: set[int], start: datetime
) -> None:
    try:
        schedule = crontab(0, 0, day_of_week, day_of_month, month)
    except ValueError:
        return
    found = schedule.next_run(start)
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)
    for _ in range(366 * 42):
        day += timedelta(days=1)
        if matches(schedule, day):
            break
    assert found == day.replace(tzinfo=UTC)


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.sampled_from(ZONES))
def test_the_next_run_is_always_later(moment: datetime, zone: str) -> None:
    moment = moment.replace(tzinfo=UTC)
    assert moment < crontab(tz=zone).next_run(moment) <= moment + MINUTE


# -- values


def test_repr_shows_the_fields_as_given() -> None:
    assert repr(crontab(0, "*/3", "mon", [1, 2])) == "<crontab: 0 */3 1,2 * mon (m/h/dM/MY/d)>"


def test_equality_goes_by_meaning() -> None:
    assert crontab(minute="0,30") == crontab(minute={0, 30})
    assert crontab(minute=0) != crontab(minute=1)
    assert crontab(tz="UTC") != crontab(tz="Europe/Berlin")
    assert crontab() != 5


@pytest.mark.parametrize(
    "schedule",
    [
        crontab(),
        crontab(0, "*/3", "mon-fri", [1, 15], "jan"),
        crontab(0, 4, tz="Europe/Oslo", starting_deadline=60),
    ],
)
def test_pickle_and_plain_values(schedule: crontab) -> None:
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert from_dict(to_dict(schedule)) == schedule
    assert repr(from_dict(to_dict(schedule))) == repr(schedule)


def test_no_run_within_centuries_is_an_error() -> None:
    schedule = crontab(0, 0, day_of_month=29, month_of_year=2)
    schedule.day_of_week = frozenset()
    with pytest.raises(RuntimeError, match="no run after"):
        schedule.next_run(at("2024-01-01"))


def test_the_end_of_time_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises((RuntimeError, OverflowError)):
        crontab(0, 0, day_of_month=29, month_of_year=2).next_run(at("9999-03-01"))
