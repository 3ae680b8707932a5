"""Late-ack tasks survive `kill -9` of the worker, of a child, and of both, on every broker."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import pytest
from project import Project, wait_until

BROKERS = ("embedded", "redis", "amqp")


def send(project: Project, count: int) -> None:
    late = project.task("late")
    with project.app.bulk():
        for number in range(count):
            late.delay(number)


@pytest.mark.parametrize("broker", BROKERS)
def test_a_thousand_tasks_and_five_kills_of_worker_and_children(
    make_project: Callable[[str], Project], broker: str
) -> None:
    project, count, kills = make_project(broker), 1000, 5
    send(project, count)

    for kill in range(kills):
        worker = project.start_worker()
        project.wait_for_effects((kill + 1) * count // (kills + 2))
        worker.kill_all()
    project.start_worker()

    project.wait_for_effects(count)
    assert set(project.effects()) == set(range(count))


@pytest.mark.parametrize("broker", BROKERS)
def test_a_killed_child_costs_no_task(make_project: Callable[[str], Project], broker: str) -> None:
    project, count = make_project(broker), 400
    worker = project.start_worker().wait_ready()
    send(project, count)

    for part in range(1, 6):
        project.wait_for_effects(part * count // 8)
        child = random.choice(worker.children())
        os.kill(child, signal.SIGKILL)
        wait_until(lambda child=child: child not in worker.children(), "the end of the child")

    project.wait_for_effects(count)
    assert set(project.effects()) == set(range(count))
    assert worker.process.poll() is None


@pytest.mark.parametrize("broker", ["embedded", "redis"])
def test_what_a_dead_worker_held_runs_again_within_the_lease(
    make_project: Callable[[str], Project], broker: str
) -> None:
    project = make_project(broker)
    first = project.start_worker().wait_ready()
    result = project.task("late").delay(1, seconds=4.0)
    wait_until(lambda: "received" in first.log, "the arrival of the task")
    first.kill_all()

    project.start_worker().wait_ready()

    assert result.get(timeout=20) == 1
    assert project.effects() == [1]
