"""Each side's control commands and event streams see the other's worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from interop_cluster import Cluster, wait_until


@pytest.mark.parametrize("tool", ["celery", "q"])
def test_status_names_both_workers(cluster: Cluster, tool: str) -> None:
    shown = cluster.tool(tool, "status")
    assert cluster.node("q") in shown
    assert cluster.node("celery") in shown


@pytest.mark.parametrize("tool", ["celery", "q"])
def test_ping_reaches_both_workers(cluster: Cluster, tool: str) -> None:
    replies = json.loads(cluster.tool(tool, "inspect", "ping", "--json"))
    assert replies[cluster.node("q")] == {"ok": "pong"}
    assert replies[cluster.node("celery")] == {"ok": "pong"}


@pytest.mark.parametrize("tool", ["celery", "q"])
def test_stats_have_the_same_shape(cluster: Cluster, tool: str) -> None:
    replies = json.loads(cluster.tool(tool, "inspect", "stats", "--json"))
    ours, theirs = replies[cluster.node("q")], replies[cluster.node("celery")]
    assert ours["pool"]["max-concurrency"] == theirs["pool"]["max-concurrency"] == 2
    assert len(ours["pool"]["processes"]) == 2
    assert set(theirs) - set(ours) == set()


@pytest.mark.parametrize("worker", ["q", "celery"])
@pytest.mark.parametrize("tool", ["celery", "q"])
def test_active_shows_a_running_task(cluster: Cluster, tool: str, worker: str, tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    call = f"hold.apply_async(({str(started)!r}, {str(release)!r}), queue={cluster.queue(worker)!r})"
    task_id = cluster.client(tool, f"answer = {call}.id")
    shown: dict[str, object] = {}

    def is_shown() -> bool:
        replies = json.loads(cluster.tool(tool, "inspect", "active", "--json"))
        shown.update(*replies[cluster.node(worker)])
        return bool(shown)

    try:
        wait_until(started.exists, "the task to start")
        wait_until(is_shown, "the task to be shown")
    finally:
        release.touch()
    assert (shown["id"], shown["name"], shown["hostname"]) == (task_id, "interop.hold", cluster.node(worker))


@pytest.mark.parametrize("tool", ["celery", "q"])
def test_registered_lists_the_tasks_of_both(cluster: Cluster, tool: str) -> None:
    replies = json.loads(cluster.tool(tool, "inspect", "registered", "--json"))
    assert "interop.add" in replies[cluster.node("q")]
    assert "interop.add" in replies[cluster.node("celery")]


def test_a_task_is_revoked_while_it_runs(cluster: Cluster, crossing: tuple[str, str], tmp_path: Path) -> None:
    client, worker = crossing
    started, release = tmp_path / "started", tmp_path / "release"
    lines = f"""
import pathlib, time
result = hold.apply_async(({str(started)!r}, {str(release)!r}), queue={cluster.queue(worker)!r})
deadline = time.monotonic() + 30
while not pathlib.Path({str(started)!r}).exists() and time.monotonic() < deadline:
    time.sleep(0.02)
result.revoke(terminate=True)
try:
    result.get(timeout=30)
except TaskRevokedError:
    answer = result.state
"""
    try:
        assert cluster.client(client, lines) == "REVOKED"
    finally:
        release.touch()


@pytest.mark.parametrize("worker", ["q", "celery"])
@pytest.mark.parametrize("tool", ["celery", "q"])
def test_the_event_stream_tells_of_a_task(cluster: Cluster, tool: str, worker: str) -> None:
    dump = cluster.start(f"events-{tool}-{worker}", cluster.command(tool, "events", "--dump"))
    try:
        dump.wait_for(cluster.node(worker))
        lines = f"answer = add.apply_async((1, 1), queue={cluster.queue(worker)!r}).id"
        task_id = cluster.client("celery", lines)
        wait_until(lambda: dump.output().count(task_id) >= 4, "sent, received, started, succeeded")
    finally:
        dump.stop()
