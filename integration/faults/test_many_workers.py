"""Many workers start together, and none leaves keys behind in Redis (B23, B24)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from project import Project, wait_until
from redis_server import RedisServer

INSPECT = """
import os, signal, sys
os.chdir(sys.argv[1]); sys.path.insert(0, ".")
from lab import app
print(app.control.inspect(timeout=2.0, limit=1).active(), flush=True)
app.control.inspect(timeout=0.01).stats()
print("killed", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def start_together(project: Project, count: int, seconds: float) -> None:
    began = time.monotonic()
    workers = [project.start_worker("-P", "solo", "-n", f"w{number}@lab") for number in range(count)]
    wait_until(lambda: all("ready." in worker.log for worker in workers), f"{count} workers", seconds)
    print(f"{count} workers ready after {time.monotonic() - began:.1f} s")
    add = project.task("add")
    with project.app.bulk():
        results = [add.delay(number, 1) for number in range(count * 10)]
    assert [result.get(timeout=30) for result in results] == list(range(1, count * 10 + 1))
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        assert worker.process.wait(30) == 0
        assert "WARNING" not in worker.log
        assert "ERROR" not in worker.log


@pytest.mark.parametrize("broker", ["redis"])
def test_six_workers_start_together(make_project: Callable[..., Project], broker: str) -> None:
    start_together(make_project(broker), 6, 15)


@pytest.mark.soak
@pytest.mark.parametrize("broker", ["embedded", "redis", "amqp"])
def test_twenty_workers_start_together(make_project: Callable[..., Project], broker: str) -> None:
    start_together(make_project(broker), 20, 60)


def test_killed_clients_and_workers_leave_no_lasting_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_nothing(tmp_path, monkeypatch, 4)


@pytest.mark.soak
def test_twenty_killed_clients_and_workers_leave_no_lasting_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_nothing(tmp_path, monkeypatch, 20)


def leave_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    monkeypatch.chdir(directory)
    (directory / "redis").mkdir()
    with RedisServer(directory / "redis") as server:
        project = Project(directory, server.url, server.url)
        try:
            worker = project.start_worker("-P", "solo").wait_ready()
            for kill in range(kills):
                assert project.task("add").delay(1, 1).get(timeout=20) == 2
                done = subprocess.run(
                    [sys.executable, "-c", INSPECT, str(directory)],
                    env=project.environment, capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
                assert done.returncode == -9, done.stderr
                assert "{" in done.stdout, done.stdout
                if kill % 4 == 3:
                    worker.kill_all()
                    worker = project.start_worker("-P", "solo").wait_ready()
            with redis.Redis(port=server.port, decode_responses=True) as client:
                lasting = {key: client.type(key) for key in client.scan_iter() if client.ttl(key) == -1}
            print(lasting)
            unknown = {
                key for key in lasting if key != project.queue and not key.startswith("_kombu.binding")
            }
            assert not unknown
            assert worker.stop() == 0
        finally:
            project.close()
