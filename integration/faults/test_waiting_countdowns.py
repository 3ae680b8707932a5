"""Many tasks that wait for their time: they wait in the broker, not in the memory of a worker (B2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from project import Project, Worker, wait_until
from redis_server import RedisServer

MOST_BYTES = 5 << 20
MOST_SCRIPT_SECONDS = 0.05
"""For a script that moves due messages: the server serves nobody else meanwhile."""
FAR_SECONDS = 6 * 3600.0


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


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_million_wait_in_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RedisServer(tmp_path, durable=False) as server, project_of(tmp_path, server.url) as project:
        client = redis.Redis(port=server.port)
        client.config_set("slowlog-log-slower-than", 1000)
        client.config_set("slowlog-max-len", 100_000)
        before = client.info("memory")["used_memory"]
        wait_in_millions(
            project, lambda: f"Redis has grown by {(client.info('memory')['used_memory'] - before) >> 20} MiB"
        )
        scripts = sorted(
            entry["duration"] / 1e6
            for entry in client.slowlog_get(100_000)
            if entry["command"].startswith(b"EVALSHA")
        )
        client.close()
        usual = scripts[len(scripts) * 99 // 100] if scripts else 0.0
        print(
            f"{len(scripts)} scripts ran 1 ms or longer; 99 of 100 of them at most {usual:.3f} s, {scripts[-3:]}"
        )
        # The machine may stop the server for a moment in any of them.
        assert usual < MOST_SCRIPT_SECONDS


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_million_wait_in_a_file(make_project: Callable[..., Project], tmp_path: Path) -> None:
    def size() -> str:
        files = [path for path in (tmp_path / ".q").rglob("*") if path.is_file()]
        return f"the files have {sum(path.stat().st_size for path in files) >> 20} MiB"

    wait_in_millions(make_project("embedded"), size)


@contextmanager
def project_of(directory: Path, url: str) -> Iterator[Project]:
    project = Project(directory, url, url)
    try:
        yield project
    finally:
        project.close()


def wait_in_millions(project: Project, size: Callable[[], str]) -> None:
    """A million wait, most of them for hours. 120,000 fall due in the same second while two workers are there."""
    early, add = project.task("early"), project.task("add")
    first, second = warm(project), project.start_worker().wait_ready()
    before = first.resident()
    began = time.monotonic()
    due = time.time() + 420
    together = datetime.fromtimestamp(due, UTC)
    with project.app.bulk():
        for number in range(880_000):
            early.apply_async((number,), countdown=FAR_SECONDS)
        for number in range(100_000):
            add.apply_async((number, 1), eta=together, ignore_result=True)
        for number in range(20_000):
            early.apply_async((number,), eta=together)
    took = time.monotonic() - began
    print(f"\n1,000,000 sent in {took:.0f} s ({1e6 / took:.0f}/s); {size()}")
    assert project.task("add").delay(1, 1).get(timeout=120) == 2
    first.wait_idle()
    assert time.time() < due, "the sending took too long for what is measured here"
    assert project.effects() == []
    grown = first.resident() - before
    print(f"the worker has grown by {grown / 2**20:.2f} MiB from {before / 2**20:.1f} MiB")
    assert grown < MOST_BYTES

    wait_until(lambda: time.time() >= due, "the moment", 420)
    slowest = slowest_answer(project, 20_000)
    late = time.time() - due
    shares = [project.runs_by(worker) for worker in (first, second)]
    print(f"all that was due ran within {late:.0f} s; shares {shares}; slowest answer {slowest:.2f} s")
    for worker in (first, second):
        worker.wait_idle()
    assert sorted(project.effects()) == list(range(20_000))
    assert min(shares) > 20_000 * 0.25
    grown = first.resident() - before
    print(f"the worker has grown by {grown / 2**20:.2f} MiB in the end")


def slowest_answer(project: Project, count: int) -> float:
    """Seconds that the broker needed at most for one small message, while `count` tasks left their traces."""
    slowest = 0.0
    with (
        project.app.connection_for_write() as connection,
        connection.SimpleQueue(f"{project.queue}-x") as queue,
    ):

        def look() -> Any:
            nonlocal slowest
            began = time.monotonic()
            queue.put({})
            queue.get(timeout=60).ack()
            slowest = max(slowest, time.monotonic() - began)
            return len(project.effects()) >= count

        wait_until(look, f"{count} tasks", 900)
        queue.queue.delete()
    return slowest


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
