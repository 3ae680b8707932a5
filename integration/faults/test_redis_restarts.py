"""Redis killed and started again in mid-load: nothing that it confirmed is lost, and the worker goes on by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import Project, wait_until
from redis_server import RedisServer


def test_redis_killed_in_mid_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restart_in_mid_load(tmp_path, monkeypatch, count=400, restarts=3)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_redis_killed_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restart_in_mid_load(tmp_path, monkeypatch, count=4000, restarts=10)


def restart_in_mid_load(directory: Path, monkeypatch: pytest.MonkeyPatch, count: int, restarts: int) -> None:
    monkeypatch.chdir(directory)
    (directory / "redis").mkdir()
    with RedisServer(directory / "redis") as server:
        project = Project(directory, server.url, server.url)
        try:
            worker = project.start_worker().wait_ready()
            late = project.task("late")
            with project.app.bulk():
                results = [late.delay(number, seconds=0.005) for number in range(count)]

            for restart in range(restarts):
                project.wait_for_effects((restart + 1) * count // (restarts + 2))
                server.kill()
                server.start()

            project.wait_for_effects(count, timeout=120)
            assert set(project.effects()) == set(range(count))
            # What ran when the server died had no way to say so.
            assert project.repeated() <= restarts * 10
            wait_until(lambda: all(result.state == "SUCCESS" for result in results[-20:]), "the last results")
            print(f"{project.repeated()} repeated by {restarts} restarts")
            assert worker.stop() == 0, worker.log[-3000:]
        finally:
            project.close()
