"""Run time averages."""

from __future__ import annotations

from qworker.pools.dispatch import RunTimes


def test_an_unknown_kind_counts_as_long():
    assert RunTimes(0.005).short("new") is None


def test_a_kind_is_short_below_the_border():
    times = RunTimes(0.005)
    times.learn("short", 0.001)
    times.learn("long", 0.006)
    assert times.short("short") == 0.001
    assert times.short("long") is None


def test_one_slow_run_counts_at_once_and_fast_ones_win_back_slowly():
    times = RunTimes(0.005)
    times.learn("kind", 0.001)
    times.learn("kind", 0.1)
    assert times.short("kind") is None
    runs = 0
    while times.short("kind") is None:
        times.learn("kind", 0.001)
        runs += 1
    assert 10 < runs < 100


def test_the_number_of_kinds_is_bounded():
    times = RunTimes(0.005)
    for number in range(25_000):
        times.learn(f"kind {number}", 0.001)
    assert len(times._averages) <= 10_000
