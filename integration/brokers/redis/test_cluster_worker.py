"""A worker on a cluster: killed, its masters killed, and still every task is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_support import NAMES, Cluster
from project import Project, wait_until


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def project(
    cluster: Cluster, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """Its results are kept elsewhere: the store wants a server of its own."""
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path, cluster.url, redis_url, lease=3)
    yield made
    made.close()


def send(project: Project, numbers: range) -> None:
    late = project.task("late")
    queues = [project.queue, *NAMES]
    for number in numbers:
        late.apply_async((number, 0.01), queue=queues[number % len(queues)])


def start(project: Project) -> Callable[[], None]:
    worker = project.start_worker("-E", "-Q", ",".join([project.queue, *NAMES]))
    return worker.wait_ready().kill_all


def test_tasks_survive_the_worker_and_a_master(cluster: Cluster, project: Project) -> None:
    count = 600
    send(project, range(count // 2))
    kill_worker = start(project)
    project.wait_for_effects(count // 10)
    kill_worker()
    start(project)
    project.wait_for_effects(count // 5)
    cluster.kill_master(cluster.master_of(project.queue))
    wait_until(lambda: project.app.control.ping(timeout=1), "an answer to a ping", 20)
    send(project, range(count // 2, count))
    project.wait_for_effects(count, 60)
    wait_until(lambda: cluster.held() == 0, "the end of the last acknowledgement", 10)
    assert cluster.waiting() == 0
    print(f"{project.repeated()} of {count} tasks ran again")
    events = [line for line in project.workers[-1].log.splitlines() if "Traceback" in line]
    assert not events
