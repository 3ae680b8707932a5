from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qworker.consumer.prefetch import MAX_ADAPTIVE, Prefetch


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, multiplier: int = 4, slots: int = 2, **options: Any) -> tuple[Prefetch, list[int]]:
    told: list[int] = []
    prefetch = Prefetch(
        lambda prefetch_count: told.append(prefetch_count), multiplier, slots, clock=clock, **options
    )
    prefetch.apply()
    return prefetch, told


def run_short(prefetch: Prefetch, clock: Clock, times: int = 20, seconds: float = 0.0) -> None:
    for _ in range(times):
        clock.now += 0.1
        prefetch.note_run(seconds)
        prefetch.apply()


def test_base_is_multiplier_times_slots(clock: Clock) -> None:
    assert make(clock)[1] == [8]


def test_zero_multiplier_means_no_limit(clock: Clock) -> None:
    prefetch, told = make(clock, multiplier=0)
    prefetch.qos.increment_eventually()
    prefetch.apply()
    assert told == [0]


def test_nothing_is_told_while_nothing_changes(clock: Clock) -> None:
    prefetch, told = make(clock)
    prefetch.apply()
    prefetch.apply()
    assert told == [8]


def test_grows_for_short_tasks_up_to_a_bound(clock: Clock) -> None:
    prefetch, told = make(clock, adaptive=True)
    run_short(prefetch, clock)
    assert told[-1] == MAX_ADAPTIVE
    assert told == sorted(told)


def test_does_not_grow_unless_adaptive(clock: Clock) -> None:
    prefetch, told = make(clock)
    run_short(prefetch, clock)
    assert told == [8]


def test_a_long_run_shrinks_at_once(clock: Clock) -> None:
    prefetch, told = make(clock, adaptive=True)
    run_short(prefetch, clock)
    prefetch.note_run(0.5)
    prefetch.apply()
    assert told[-1] == 8


def test_an_unknown_task_type_shrinks_before_it_runs(clock: Clock) -> None:
    prefetch, told = make(clock, adaptive=True)
    run_short(prefetch, clock)
    prefetch.note_dispatch(SimpleNamespace(runs=0, average_seconds=0.0))  # type: ignore[arg-type]
    prefetch.apply()
    assert told[-1] == 8


def test_the_size_follows_the_pool(clock: Clock) -> None:
    prefetch, told = make(clock)
    prefetch.resize(4)
    prefetch.apply()
    prefetch.resize(1)
    prefetch.apply()
    assert told == [8, 16, 4]


def test_running_tasks_of_a_lost_connection_lower_the_start_and_give_back(clock: Clock) -> None:
    prefetch, told = make(clock)
    prefetch.reduce_for(1)
    prefetch.apply()
    prefetch.note_run(1.0)
    prefetch.apply()
    assert told == [8, 4, 8]
