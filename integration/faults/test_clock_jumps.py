"""Wall clocks set back and forward in mid-load: no task lost, none twice while its owner lives, no lease ended by it.

First the clocks of the workers and of a client, then that of the Redis server. Countdowns are a matter of the wall
clock: `docs/guarantees.md` says of which.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from clocks import Clock
from project import Project, Worker
from redis_server import RedisServer

HOUR, DAY = 3600, 86400
LEASE_SECONDS = 2.0
HOLD_SECONDS = 2.5 * LEASE_SECONDS
ROOM_SECONDS = 8.0
"""For noticing a death, one fetch, and a busy machine."""

CLIENT = """
import sys
from lab import app

late, results = app.tasks["lab.late_hold"], []
print("ready", flush=True)
for line in sys.stdin:
    first, last, countdown = map(int, line.split())
    for number in range(first, last):
        results.append(late.apply_async((number, 0.01), countdown=countdown or None))
    print("sent", flush=True)
assert [result.get(timeout=60) for result in results] == list(range(len(results)))
print("all results", flush=True)
"""


@pytest.fixture
def make_clock(faketime_library: str, tmp_path: Path) -> Iterator[Callable[[str], Clock]]:
    clocks: list[Clock] = []

    def make(name: str) -> Clock:
        clocks.append(Clock(faketime_library, tmp_path / f"clock-of-{name}"))
        return clocks[-1]

    yield make
    for clock in clocks:
        clock.close()


class Client:
    """A program that sends `late_hold` tasks, numbered from 0, and waits for their results at the end."""

    def __init__(self, project: Project, clock: Clock) -> None:
        self._project = project
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            cwd=project.directory,
            env=project.environment | clock.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.sent = 0
        self._expect("ready")

    def send(self, count: int, countdown: int = 0) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self.sent} {self.sent + count} {countdown}\n")
        self._process.stdin.flush()
        self._expect("sent")
        self.sent += count

    def finish(self) -> None:
        """All results have arrived."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._expect("all results")
        assert self._process.wait(20) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _expect(self, line: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == line


@pytest.mark.parametrize("broker", ["embedded", "redis", "amqp"])
def test_clocks_of_workers_and_clients_jump(
    make_project: Callable[..., Project], make_clock: Callable[[str], Clock], broker: str
) -> None:
    jump_around(make_project, broker, make_clock, [-HOUR, HOUR, -DAY], batch=60)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("broker", ["embedded", "redis", "amqp"])
def test_clocks_of_workers_and_clients_jump_often(
    make_project: Callable[..., Project], make_clock: Callable[[str], Clock], broker: str
) -> None:
    jumps = [-HOUR, HOUR, -DAY, DAY, -5, 5] * 4
    jump_around(make_project, broker, make_clock, jumps, batch=250)


def jump_around(
    make_project: Callable[..., Project],
    broker: str,
    make_clock: Callable[[str], Clock],
    jumps: list[int],
    batch: int,
) -> None:
    """One worker has a clock that jumps, another the right one; the client's clock jumps the other way."""
    project = make_project(broker, lease=LEASE_SECONDS)
    right, client_clock, worker_clock = dict(project.environment), make_clock("client"), make_clock("worker")
    project.environment |= worker_clock.environment
    workers = [project.start_worker()]
    project.environment = right
    workers.append(project.start_worker())
    for worker in workers:
        worker.wait_ready()
    client = Client(project, client_clock)
    try:
        long = [project.task("late_hold").delay(-1 - number, HOLD_SECONDS) for number in range(2)]
        project.wait_for_effects(2)
        for jump in jumps:
            client.send(batch)
            # To RabbitMQ's delay queues a worker that is behind sends them again.
            if broker != "amqp" or jump > 0:
                client.send(batch // 4, countdown=1)
                client.send(batch // 4, countdown=6)
            project.wait_for_effects(client.sent // 4)
            worker_clock.set(jump)
            client_clock.set(-jump)
            client.send(batch)
            if jump > 0:
                client.send(batch // 4, countdown=2)  # due at once by every other clock
            project.wait_for_effects(client.sent // 2)
            worker_clock.set(0)
            client_clock.set(0)
            if broker == "amqp":
                project.wait_for_effects(client.sent)  # before a worker is behind again
        project.wait_for_effects(client.sent + len(long), timeout=120)
        assert [result.get(timeout=30) for result in long] == [-1, -2]
        client.finish()
        check(project, workers, client.sent, len(long))
    finally:
        client.kill()


def check(project: Project, workers: list[Worker], sent: int, long: int) -> None:
    for worker in workers:
        worker.wait_idle()
        assert worker.stop() == 0, worker.log[-3000:]
    assert sorted(project.effects()) == list(range(-long, sent))


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -DAY])
def test_the_clock_of_redis_jumps(
    make_clock: Callable[[str], Clock],
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    jump: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    jump_in_redis(make_clock("redis"), tmp_path, redis_url, [jump], batch=60)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_clock_of_redis_jumps_often(
    make_clock: Callable[[str], Clock], redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jumps = [-HOUR, HOUR, -DAY, 20, HOUR, -5, 5] * 3
    jump_in_redis(make_clock("redis"), tmp_path, redis_url, jumps, batch=250)


def jump_in_redis(clock: Clock, directory: Path, store: str, jumps: list[int], batch: int) -> None:
    """The results are elsewhere: Redis lets keys expire by its clock, and they are kept for a day."""
    (directory / "redis").mkdir()
    with RedisServer(directory / "redis", clock.server_environment) as server:
        project = Project(directory, server.url, store, lease=LEASE_SECONDS)
        try:
            workers = [project.start_worker("-c", "3"), project.start_worker("-c", "3")]
            for worker in workers:
                worker.wait_ready()
            number = 0
            for jump in jumps:
                number = one_jump(project, clock, server, jump, batch, number)
            workers = lose_an_owner(project, clock, jumps[-1], workers, number)
            for worker in workers:
                worker.wait_idle()
                assert worker.stop() == 0, worker.log[-3000:]
        finally:
            project.close()


def one_jump(project: Project, clock: Clock, server: RedisServer, jump: int, batch: int, first: int) -> int:
    """Returns the number of the next task."""
    hold, number = project.task("late_hold"), first
    results = [hold.delay(number + each, HOLD_SECONDS) for each in range(3)]
    project.wait_for_effects(first + 3)
    number += 3
    for countdown in (None, 1, 3):
        with project.app.bulk():
            results += [
                hold.apply_async((number + each, 0.005), countdown=countdown) for each in range(batch)
            ]
        number += batch
    project.wait_for_effects(first + 3 + batch // 4)
    clock.set(jump)
    with redis.Redis(port=server.port) as client:
        assert abs(client.time()[0] - time.time() - jump) < 5
    project.wait_for_effects(first + 3 + batch)
    # A late worker asks for its share of dead owners' messages with no memory of the clock before.
    late = project.start_worker().wait_ready()
    assert [result.get(timeout=60) for result in results[:3]] == [first, first + 1, first + 2]
    assert len(project.app.control.ping(timeout=5.0, limit=3)) == 3
    assert late.stop() == 0
    clock.set(0)
    project.wait_for_effects(number)
    assert [result.get(timeout=60) for result in results] == list(range(first, number))
    assert sorted(project.effects()) == list(range(number))
    return number


def lose_an_owner(
    project: Project, clock: Clock, jump: int, workers: list[Worker], number: int
) -> list[Worker]:
    """Its messages come back within the lease, whatever the clock shows then. Returns the worker left."""
    result = project.task("late_hold").delay(number, 2.0)
    project.wait_for_effects(number + 1)
    (owner,) = (worker for worker in workers if project.last_pid() in worker.children())
    owner.kill_all()
    killed = time.monotonic()
    clock.set(jump)
    while project.effects().count(number) < 2:
        assert time.monotonic() - killed < LEASE_SECONDS + ROOM_SECONDS, project.effects()[number:]
        time.sleep(0.02)
    print(f"jump {jump:+d} s: again after {time.monotonic() - killed:.1f} s")
    assert result.get(timeout=20) == number
    assert project.effects().count(number) == 2
    return [worker for worker in workers if worker is not owner]
