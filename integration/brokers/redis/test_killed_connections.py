"""A worker whose connections are killed again and again: it neither spins nor gathers connections (B20)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from project import Project, Worker, wait_until
from redis_support import Server

MOST_CPU = 0.05
"""Share of one processor that coming back once a second may cost an idle worker."""


@pytest.fixture
def project(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    made = Project(place, server.url, "cache+memory://", lease=30)
    yield made
    made.close()


def cpu_seconds(worker: Worker) -> float:
    """What the main process has used."""
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connections(client: Any) -> int:
    """How many there are beside that of the test."""
    return len(client.client_list()) - 1


def kill_every_second(server: Server, project: Project, kills: int) -> None:
    early = project.task("early")
    worker = project.start_worker().wait_ready()
    with redis.Redis(port=server.port, single_connection_client=True) as client:
        early.delay(-1)
        project.wait_for_effects(1)
        project.app.close()  # its own connections shall not be counted
        wait_until(lambda: connections(client) > 0, "a connection")
        before = steady(client)
        used, began = cpu_seconds(worker), time.monotonic()
        for _ in range(kills):
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
            time.sleep(1)  # the time between two kills is what is asked for
        share = (cpu_seconds(worker) - used) / (time.monotonic() - began)
        early.delay(1)
        project.wait_for_effects(2, 20)
        project.app.close()
        after = steady(client)
        print(f"{kills} kills: {share:.1%} of a processor, {before} connections before, {after} after")
        assert share < MOST_CPU
        assert after <= before
        assert worker.process.poll() is None


def steady(client: Any) -> int:
    """The number of connections once it stays the same for a second."""
    seen: list[tuple[float, int]] = []

    def same() -> bool:
        seen.append((time.monotonic(), connections(client)))
        lately = [count for at, count in seen if at > time.monotonic() - 1]
        return len(set(lately)) == 1 and seen[-1][0] - seen[0][0] > 1 and lately[0] > 0

    wait_until(same, "a steady number of connections", 20)
    return seen[-1][1]


def test_killed_three_times(server: Server, project: Project) -> None:
    kill_every_second(server, project, 3)


@pytest.mark.soak
def test_killed_for_a_minute(server: Server, project: Project) -> None:
    kill_every_second(server, project, 60)
