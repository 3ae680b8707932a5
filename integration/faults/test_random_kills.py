"""SIGKILL of a child, of the worker, of both, at random moments: nothing lost, repeated only what was on (W2, B1)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from project import Project, Worker

SLOTS = 2
UNFLUSHED = 8
"""Most runs of one kill that had ended but were not acknowledged yet: a child reports what it has done 5 ms after
its last report at the latest, which is room for two runs of the tasks here (2 to 10 ms); the parent acknowledges at
the end of the tick that reads the report. Twice that, for a busy machine.

RabbitMQ delivers again all that a dead worker had not acknowledged, which is what it had prefetched, too: that has not
run, so the bound is the same. The next worker replaces such a message by a copy that counts the loss, and then
acknowledges it; killed between the two it leaves both, of one message, which the bound has room for."""


@pytest.mark.parametrize("broker", ["embedded", "redis", "amqp"])
def test_kills_at_random_moments(make_project: Callable[..., Project], broker: str) -> None:
    kill_at_random(make_project(broker, lease=1.5), count=500, kills=4, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("broker", ["embedded", "redis", "amqp"])
def test_many_kills_at_random_moments(make_project: Callable[..., Project], broker: str, seed: int) -> None:
    kill_at_random(make_project(broker, lease=1.5), count=20_000, kills=30, seed=seed)


def kill_at_random(project: Project, count: int, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    late = project.task("late")
    with project.app.bulk():
        for number in range(count):
            late.delay(number, seconds=rng.uniform(0.002, 0.01))
    moments = sorted(rng.sample(range(count // 20, count * 9 // 10), kills))
    kinds = [("child", "main", "all")[kill % 3] for kill in range(kills)]
    rng.shuffle(kinds)
    worker = project.start_worker()

    for moment, kind in zip(moments, kinds, strict=True):
        project.wait_for_effects(moment, timeout=120)
        worker = kill(project, worker, kind, rng)

    project.wait_for_effects(count, timeout=300)
    worker.wait_idle()
    effects = Counter(project.effects())
    assert set(effects) == set(range(count))
    assert project.repeated() <= kills * (SLOTS + UNFLUSHED), effects.most_common(5)
    assert worker.stop() == 0
    print(f"{project.repeated()} repeated by {kills} kills: {Counter(kinds)}")


def kill(project: Project, worker: Worker, kind: str, rng: random.Random) -> Worker:
    """Returns the worker that goes on."""
    if kind == "child":
        worker.kill_child(rng.choice)
        return worker
    if kind == "main":
        worker.kill_main()
    else:
        worker.kill_all()
    return project.start_worker()
