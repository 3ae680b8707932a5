"""What lasts longer than a lease runs once, what its owner's death cuts off runs again within one (B1, B3).

RabbitMQ knows no leases; it has to do no worse.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from project import Project

BROKERS = ("embedded", "redis", "amqp")
LEASE_SECONDS = 3.0
ROOM_SECONDS = 6.0
"""For noticing a death, one fetch, and a busy machine."""


@pytest.mark.parametrize("broker", BROKERS)
def test_longer_than_two_leases(make_project: Callable[..., Project], broker: str) -> None:
    outlast(make_project(broker, lease=LEASE_SECONDS), 7.0, 8.0)


@pytest.mark.soak
@pytest.mark.parametrize("broker", BROKERS)
def test_longer_than_six_leases(make_project: Callable[..., Project], broker: str) -> None:
    outlast(make_project(broker, lease=LEASE_SECONDS), 18.0, 20.0)


def outlast(project: Project, run: float, countdown: float) -> None:
    """One task runs for `run` seconds, one waits for `countdown`, and a third loses its owner meanwhile."""
    workers = [project.start_worker(), project.start_worker()]
    for worker in workers:
        worker.wait_ready()
    long = project.task("late").delay(1, seconds=run)
    later = project.task("late").apply_async((2,), countdown=countdown)
    assert long.get(timeout=run + 20) == 1
    assert later.get(timeout=countdown + 20) == 2
    assert sorted(project.effects()) == [1, 2]

    orphan = project.task("late_hold").delay(3, 2.0)
    project.wait_for_effects(3)
    (owner,) = (worker for worker in workers if project.last_pid() in worker.children())
    owner.kill_all()
    killed = time.monotonic()
    while project.effects().count(3) < 2:
        assert time.monotonic() - killed < LEASE_SECONDS + ROOM_SECONDS, project.effects()
        time.sleep(0.02)
    print(f"again after {time.monotonic() - killed:.1f} s")
    assert orphan.get(timeout=20) == 3
    assert sorted(project.effects()) == [1, 2, 3, 3]
