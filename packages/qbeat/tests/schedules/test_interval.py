"""Intervals."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbeat import schedule
from qbeat.schedules import from_dict, maybe_schedule, to_dict

START = datetime(2024, 1, 1, 12, tzinfo=UTC)


def after(seconds: float) -> Any:
    return lambda: START + timedelta(seconds=seconds)


def test_not_due_within_the_interval() -> None:
    assert schedule(30, nowfun=after(10)).is_due(START) == (False, 20.0)
    assert schedule(30, nowfun=after(10)).remaining_estimate(START) == timedelta(seconds=20)


def test_due_at_its_end() -> None:
    assert schedule(timedelta(seconds=30), nowfun=after(30)).is_due(START) == (True, 30.0)


def test_a_late_run_does_not_put_off_the_next_one() -> None:
    every = schedule(30, nowfun=after(31))
    assert every.is_due(START) == (True, 29.0)
    assert every.advance(START, every.now()) == START + timedelta(seconds=30)


def test_of_several_missed_runs_one_is_sent() -> None:
    every = schedule(30, nowfun=after(100))
    assert every.is_due(START) == (True, 20.0)
    assert every.advance(START, every.now()) == START + timedelta(seconds=90)


@given(st.floats(0.01, 1e6), st.floats(0, 1e7))
def test_the_grid_holds_whatever_the_delay(interval: float, delay: float) -> None:
    every = schedule(interval, nowfun=after(interval + delay))
    now = every.now()
    last = every.advance(START, now)
    assert last <= now < last + every.run_every  # type: ignore[operator]
    assert (last - START) % every.run_every == timedelta(0)  # type: ignore[operator]


def test_a_clock_that_was_set_back_delays_by_one_interval_at_most() -> None:
    assert schedule(30, nowfun=after(-86400)).is_due(START) == (False, 30.0)


@pytest.mark.parametrize(
    ("interval", "now", "remaining"),
    [
        (timedelta(seconds=30), 10.4, 19.6),
        (timedelta(minutes=5), 61, 239),
        (timedelta(hours=2), 1800, 5400),
        (timedelta(days=1), 3600, 11 * 3600),
    ],
)
def test_relative_runs_by_the_clock(interval: timedelta, now: float, remaining: float) -> None:
    every = schedule(interval, relative=True, nowfun=after(now))
    last = START + timedelta(seconds=1.5)
    due, left = every.is_due(last)
    assert not due
    assert left == pytest.approx(remaining + {30: 1, 300: 0}.get(int(interval.total_seconds()), 0))


def test_relative_days_begin_in_the_zone() -> None:
    every = schedule(timedelta(days=1), relative=True, tz="Asia/Tokyo")
    assert every.next_run(START) == datetime(2024, 1, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize("bad", [0, -1, timedelta(0), "30", True, float("nan"), float("inf")])
def test_an_interval_must_be_more_than_zero(bad: Any) -> None:
    with pytest.raises(ValueError, match="interval"):
        schedule(bad)


def test_a_huge_interval_is_fine() -> None:
    century = schedule(timedelta(days=36500), nowfun=after(0))
    assert century.is_due(START) == (False, 36500 * 86400.0)


def test_a_schedule_of_your_own() -> None:
    class MySchedule(schedule):
        def is_due(self, last_run_at: datetime) -> Any:
            return True, 5

    mine = MySchedule()
    assert mine.is_due(START) == (True, 5)
    assert maybe_schedule(mine) is mine
    assert "own rule" in repr(mine)
    with pytest.raises(ValueError, match="override is_due"):
        mine.remaining_estimate(START)


def test_values() -> None:
    assert schedule(30) == schedule(timedelta(seconds=30))
    assert schedule(30) != schedule(31)
    assert schedule(30) != schedule(30, relative=True)
    assert schedule(30) != 30
    assert repr(schedule(10)) == "<freq: 10.00 seconds>"
    assert (schedule(90).seconds, schedule(90).human_seconds) == (90.0, "1.50 minutes")
    assert pickle.loads(pickle.dumps(schedule(30, relative=True))) == schedule(30, relative=True)
    assert from_dict(to_dict(schedule(30, relative=True))) == schedule(30, relative=True)


@pytest.mark.parametrize("value", [30, 30.0, timedelta(seconds=30), schedule(30)])
def test_maybe_schedule(value: Any) -> None:
    assert maybe_schedule(value) == schedule(30)


@pytest.mark.parametrize("value", ["30", None, True, object()])
def test_maybe_schedule_refuses_the_rest(value: Any) -> None:
    with pytest.raises(ValueError, match="a schedule is"):
        maybe_schedule(value)


def test_whatever_has_is_due_is_a_schedule() -> None:
    class Duck:
        def is_due(self, last_run_at: datetime) -> Any:
            return False, 1.0

    duck = Duck()
    assert maybe_schedule(duck) is duck
    with pytest.raises(TypeError, match="Duck"):
        to_dict(duck)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"type": "lunar"},
        {"type": "interval"},
        {"type": "crontab", "second": 1},
        {"type": "interval", "seconds": 0},
    ],
)
def test_plain_values_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"type|interval"):
        from_dict(values)
