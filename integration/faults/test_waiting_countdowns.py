"""Many tasks that wait for their time: they wait in the broker, not in the memory of a worker (B2)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from project import Project, Worker

MOST_BYTES = 5 << 20


@pytest.mark.parametrize("broker", ["embedded", "redis"])
def test_countdowns_do_not_fill_the_worker(make_project: Callable[..., Project], broker: str) -> None:
    project = make_project(broker)
    grown = wait_in_the_broker(project, warm(project), 20_000, countdown=900.0)
    assert grown < MOST_BYTES


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("broker", ["embedded", "redis"])
def test_a_second_worker_takes_its_share(make_project: Callable[..., Project], broker: str) -> None:
    project, count = make_project(broker), 100_000
    first = warm(project)
    assert wait_in_the_broker(project, first, count, countdown=60.0) < MOST_BYTES
    second = project.start_worker().wait_ready()

    project.wait_for_effects(count, timeout=600)

    shares = [project.runs_by(worker) / count for worker in (first, second)]
    print(f"shares {shares}, repeated {project.repeated()}")
    assert project.repeated() == 0
    assert min(shares) > 0.25


def warm(project: Project) -> Worker:
    """A worker that has done all it does here once, so that its memory is what it needs anyway."""
    worker = project.start_worker().wait_ready()
    with project.app.bulk():
        results = [project.task("add").delay(number, 1) for number in range(500)]
        waiting = [project.task("add").apply_async((number, 1), countdown=6) for number in range(500)]
    for result in results + waiting:
        result.get(timeout=60)
    return worker


def wait_in_the_broker(project: Project, worker: Worker, count: int, countdown: float) -> int:
    """Send `count` tasks; return by how many bytes the worker has grown once it has seen them all."""
    before = worker.resident()
    early = project.task("early")
    with project.app.bulk():
        for number in range(count):
            early.apply_async((number,), countdown=countdown)
    # The queue keeps the order, so this one comes behind all of them.
    assert project.task("add").delay(1, 1).get(timeout=120) == 2
    worker.wait_idle()
    assert project.effects() == []
    grown = worker.resident() - before
    print(f"grown by {grown / 2**20:.2f} MiB from {before / 2**20:.1f} MiB")
    return grown
