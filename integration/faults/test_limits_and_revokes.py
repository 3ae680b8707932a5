"""Revoking, time limits, and replaced processes (B16, B17)."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from project import Project, wait_until

ROOM_SECONDS = 1.0
"""After a limit, until the state is final."""
BROKERS = ("embedded", "redis")


@pytest.mark.parametrize("broker", BROKERS)
def test_revoked_before_it_starts_and_while_it_runs(
    make_project: Callable[..., Project], broker: str
) -> None:
    project = make_project(broker)
    worker = project.start_worker().wait_ready()
    hold = project.task("hold")
    running = [hold.delay(number, 30.0) for number in (1, 2)]
    project.wait_for_effects(2)
    waiting, later = hold.delay(3, 0.0), hold.apply_async((4, 0.0), countdown=2.0)
    project.app.control.revoke([waiting.id, later.id], reply=True, timeout=5, limit=1)

    began = time.monotonic()
    project.app.control.revoke([result.id for result in running], terminate=True)

    for result in (*running, waiting, later):
        result.get(timeout=20, propagate=False)
        assert result.state == "REVOKED"
        if result is waiting:
            assert time.monotonic() - began < 5.0  # the thirty seconds are over
    assert sorted(project.effects()) == [1, 2]
    assert project.task("add").delay(1, 1).get(timeout=20) == 2
    assert worker.stop() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_time_limits_are_kept(make_project: Callable[..., Project], pool: str) -> None:
    project = make_project("redis")
    worker = project.start_worker("-P", pool).wait_ready()
    hold = project.task("hold")
    assert hold.delay(0, 0.0).get(timeout=20) == 0

    results = [hold.apply_async((1, 20.0), soft_time_limit=1.0), hold.apply_async((2, 20.0), time_limit=1.0)]
    project.wait_for_effects(3)
    began = time.monotonic()
    for result in results:
        result.get(timeout=20, propagate=False)
    took = time.monotonic() - began

    names = [type(result.result).__name__ for result in results]
    assert names == ["SoftTimeLimitExceeded", "TimeLimitExceeded"]
    assert took < 1.0 + ROOM_SECONDS
    # Their slots are free at once.
    again = [project.task("add").delay(number, 1) for number in range(4)]
    assert [result.get(timeout=5) for result in again] == [1, 2, 3, 4]
    assert worker.stop() == 0
    print(f"{pool}: both final after {took:.2f} s")


@pytest.mark.parametrize("broker", BROKERS)
def test_replaced_processes_lose_nothing(make_project: Callable[..., Project], broker: str) -> None:
    replace_every_three(make_project(broker), 300)


@pytest.mark.soak
@pytest.mark.parametrize("broker", BROKERS)
def test_many_replaced_processes_lose_nothing(make_project: Callable[..., Project], broker: str) -> None:
    replace_every_three(make_project(broker), 2000)


def replace_every_three(project: Project, count: int) -> None:
    worker = project.start_worker("--max-tasks-per-child", "3").wait_ready()
    early = project.task("early")
    began = time.monotonic()
    with project.app.bulk():
        results = [early.delay(number) for number in range(count)]
    assert [result.get(timeout=120) for result in results] == list(range(count))
    assert sorted(project.effects()) == list(range(count))
    print(f"{count / (time.monotonic() - began):.0f} tasks/s")
    wait_until(lambda: len(worker.children()) == 2, "a full pool")
    assert worker.stop() == 0
