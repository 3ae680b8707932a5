"""SIGTERM in mid-load with two workers: what runs is finished, the rest goes back, nothing twice (W7)."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from project import Project, wait_until

GRACE_SECONDS = 10.0
"""The longest task runs 0.02 s; the rest is room for a busy machine."""


@pytest.mark.parametrize("broker", ["embedded", "redis", "amqp"])
def test_two_workers_are_stopped_in_mid_load(make_project: Callable[..., Project], broker: str) -> None:
    stop_in_mid_load(make_project(broker), count=600, stops=3 if broker == "amqp" else 5)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("broker", ["embedded", "redis", "amqp"])
def test_fifty_stops_in_mid_load(make_project: Callable[..., Project], broker: str) -> None:
    stop_in_mid_load(make_project(broker), count=12_000, stops=50)


def stop_in_mid_load(project: Project, count: int, stops: int) -> None:
    late = project.task("late")
    with project.app.bulk():
        for number in range(count):
            late.delay(number, seconds=0.02 if number % 2 else 0.002)
    workers = [project.start_worker(), project.start_worker()]
    slowest = 0.0

    for stop in range(stops):
        project.wait_for_effects((stop + 1) * count // (stops + 2))
        leaving = workers.pop(0).wait_ready()
        began = time.monotonic()
        assert leaving.stop(GRACE_SECONDS) == 0, leaving.log[-3000:]
        slowest = max(slowest, time.monotonic() - began)
        workers.append(project.start_worker())

    project.wait_for_effects(count)
    for worker in workers:
        worker.wait_ready()
        assert worker.stop(GRACE_SECONDS) == 0, worker.log[-3000:]
    assert sorted(project.effects()) == list(range(count))
    print(f"slowest stop {slowest:.1f} s")


def test_a_worker_whose_name_is_taken_waits_for_it(make_project: Callable[..., Project]) -> None:
    """RabbitMQ lets one connection alone have the mailbox: the second worker says so, waits, and takes over."""
    project = make_project("amqp")
    first = project.start_worker("-n", "same@lab").wait_ready()
    second = project.start_worker("-n", "same@lab")
    wait_until(lambda: "lost at once" in second.log, "the second worker's pause")
    assert "A worker named same@lab is already connected" in second.log
    assert project.task("add").delay(1, 1).get(timeout=20) == 2
    assert second.log.count("Connected to") < 5

    assert first.stop() == 0

    second.wait_ready()
    assert project.task("add").delay(1, 1).get(timeout=20) == 2
    assert second.stop() == 0
