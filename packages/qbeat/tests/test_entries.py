"""Entries, and what the settings may say."""

from __future__ import annotations

import itertools
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qbeat import BeatLazyFunc, ScheduleEntry, crontab, from_config, schedule
from qcore.errors import ImproperlyConfigured

START = datetime(2024, 1, 1, 12, tzinfo=UTC)


def entry(**fields: Any) -> ScheduleEntry:
    return ScheduleEntry(**{"name": "e", "task": "t", "schedule": 30, "last_run_at": START, **fields})


def test_defaults() -> None:
    made = ScheduleEntry(name="e", task="t", schedule=30)
    assert (made.args, made.kwargs, made.options, made.total_run_count) == ((), {}, {}, 0)
    assert made.schedule == schedule(30)
    assert datetime.now(UTC) - made.last_run_at < timedelta(minutes=1)


def test_next_counts_and_keeps_the_grid() -> None:
    late = entry(schedule=schedule(30, nowfun=lambda: START + timedelta(seconds=35)))
    following = next(late)
    assert following.last_run_at == START + timedelta(seconds=30)
    assert (late.total_run_count, following.total_run_count) == (0, 1)
    assert following == late
    assert following is not late
    assert late.next(START).last_run_at == START


def test_next_of_a_crontab_is_now() -> None:
    now = START + timedelta(hours=1, seconds=3)
    assert next(entry(schedule=crontab(0, nowfun=lambda: now))).last_run_at == now


def test_is_due_asks_the_schedule() -> None:
    assert entry(schedule=schedule(30, nowfun=lambda: START)).is_due() == (False, 30.0)


def test_equality_is_that_of_the_editable_fields() -> None:
    assert entry() == entry(total_run_count=5, last_run_at=START + timedelta(1), name="other")
    for field, value in {
        "task": "u",
        "schedule": 31,
        "args": (1,),
        "kwargs": {"a": 1},
        "options": {"queue": "q"},
    }.items():
        assert entry() != entry(**{field: value})
        assert not entry().editable_fields_equal(entry(**{field: value}))
    assert entry() != "e"


def test_update_leaves_run_and_count() -> None:
    known = entry(total_run_count=5)
    known.update(entry(task="u", schedule=60, args=(1,), last_run_at=START + timedelta(1)))
    assert (known.task, known.schedule, known.args) == ("u", schedule(60), (1,))
    assert (known.last_run_at, known.total_run_count) == (START, 5)


def test_lazy_arguments_are_computed_each_time() -> None:
    counter = itertools.count()
    made = entry(
        args=(1, BeatLazyFunc(lambda n: n + next(counter), 10)), kwargs={"k": BeatLazyFunc(dict, a=1)}
    )
    assert made.evaluated_args() == (1, 10)
    assert made.evaluated_args() == (1, 11)
    assert made.evaluated_kwargs() == {"k": {"a": 1}}


def test_pickle_and_repr() -> None:
    made = entry(args=(1,), kwargs={"a": "b"}, app=object())
    copy = pickle.loads(pickle.dumps(made))
    assert copy == made
    assert (copy.app, copy.last_run_at) == (None, START)
    assert repr(made) == "<ScheduleEntry: e t(1, a='b') <freq: 30.00 seconds>>"


def test_from_config() -> None:
    made = from_config(
        {
            "a": {"task": "t", "schedule": 30.0, "args": (16, 16)},
            "b": {"task": "u", "schedule": crontab(), "kwargs": {"k": 1}, "options": {"expires": 5}},
            "c": {"task": "v", "schedule": timedelta(hours=1), "relative": True},
            "d": entry(name="d"),
        }
    )
    assert list(made) == ["a", "b", "c", "d"]
    assert (made["a"].name, made["a"].args) == ("a", (16, 16))
    assert made["b"].options == {"expires": 5}
    assert made["c"].schedule == schedule(3600, relative=True)
    assert from_config(None) == {}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"schedule": 30}, "'task' is missing"),
        ({"task": "t"}, "'schedule' is missing"),
        ({"task": "t", "schedule": 30, "arg": ()}, "did you mean 'args'"),
        ({"task": "t", "schedule": 30, "zzz": ()}, "there is no field 'zzz'"),
        ({"task": "t", "schedule": "every day"}, "a schedule is"),
        ({"task": "t", "schedule": 0}, "more than zero"),
        ({"task": print, "schedule": 30}, "name of a task"),
        ({"task": "t", "schedule": 30, "args": "abc"}, "comma"),
        ({"task": "t", "schedule": 30, "args": 3}, "not iterable"),
        (["t", 30], "must be a mapping"),
    ],
)
def test_a_bad_entry_is_named(fields: Any, text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"beat_schedule\['bad'\].*{text}"):
        from_config({"good": {"task": "t", "schedule": 1}, "bad": fields})
