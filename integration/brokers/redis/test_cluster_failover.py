"""A cluster whose servers fail over, die and exchange slots while messages are published and consumed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_support import NAMES, Cluster
from load import Load
from redis_support import app_connection, until

GRACEFUL_SECONDS = 5.0
"""How long a queue may be silent while its master hands over (the health check interval is four)."""

KILLED_SECONDS = 12.0
"""The same when the master was killed: a node timeout, the election, and opening connections again."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    """All its servers run, whatever the test before has done to them."""
    started.mend()
    return started


def load_on(cluster: Cluster, **options: Any) -> Load:
    def connect() -> Any:
        settings = {"lease_seconds": 4, "socket_timeout": 3, **options}
        return app_connection(cluster.url, **settings)

    return Load(connect, NAMES, lambda: cluster.held() + cluster.waiting())


def test_graceful_failover_of_every_master_loses_and_doubles_nothing(cluster: Cluster) -> None:
    load = load_on(cluster)
    with load.running():
        for master in cluster.masters():
            cluster.fail_over(master)
            load.more_of(NAMES, GRACEFUL_SECONDS + 2)
    load.report("cluster, graceful failover")
    assert not load.missing()
    assert not load.doubled()
    assert load.losses.total() == 0, "no connection is lost"


def test_a_killed_master_loses_nothing_that_a_replica_confirmed(cluster: Cluster) -> None:
    load = load_on(cluster, wait_replicas=1)
    with load.running():
        cluster.kill_master(cluster.master_of(NAMES[0]))
        # Its replica has none: what it takes now is on one server only.
        others = [name for name in NAMES if cluster.master_of(name) is not cluster.master_of(NAMES[0])]
        load.more_of(others, KILLED_SECONDS)
    load.report("cluster, master killed")
    assert not load.missing()


def test_slots_that_move_key_by_key_lose_and_double_nothing(cluster: Cluster) -> None:
    load = load_on(cluster)
    with load.running():
        for name in NAMES[:3]:
            source = cluster.master_of(name)
            target = next(server for server in cluster.masters() if server is not source)
            assert cluster.move(name, target) >= 2
            load.more_of(NAMES, GRACEFUL_SECONDS)
    load.report("cluster, slots moved")
    assert not load.missing()
    assert not load.doubled()
    assert load.losses["consumer"] == 0


def test_a_cluster_that_is_down_is_waited_for(tmp_path: Path) -> None:
    """A master without a replica is away: its slots are nobody's, and the other servers answer CLUSTERDOWN."""
    cluster = Cluster(tmp_path, replicas=False)
    load = load_on(cluster)
    try:
        cluster.start()
        with load.running():
            master = cluster.master_of(NAMES[0])
            master.kill()
            until(cluster.is_down, 10)
            used, lost = time.process_time(), load.losses.total()
            time.sleep(2)  # the time in which nothing shall spin
            assert time.process_time() - used < 1
            assert load.losses.total() - lost < 100
            master.start()
            load.more_of(NAMES, KILLED_SECONDS)
        load.report("cluster, down for a while")
    finally:
        cluster.kill()
    assert not load.missing()
    assert not load.doubled()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_thirty_graceful_failovers_lose_and_double_nothing(cluster: Cluster) -> None:
    """A handover that does not come about holds a master's clients up for five seconds."""
    load = load_on(cluster, socket_timeout=8, lease_seconds=20)
    with load.running():
        for round in range(30):
            cluster.fail_over(cluster.master_of(NAMES[round % len(NAMES)]))
            load.more_of(NAMES, GRACEFUL_SECONDS + 2)
            until(cluster.is_whole, 30)
    load.report("cluster, 30 graceful failovers")
    assert not load.missing()
    assert not load.doubled()


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("replicas", [0, 1], ids=["not waiting", "waiting for replicas"])
def test_twelve_killed_masters(cluster: Cluster, replicas: int) -> None:
    load = load_on(cluster, wait_replicas=replicas)
    # Without waiting, what the masters took in their last milliseconds may be lost.
    lost = 0 if replicas else 12 * 100
    with load.running(lost=lost):
        for round in range(12):
            master = cluster.master_of(NAMES[round % len(NAMES)])
            cluster.kill_master(master)
            load.more_of(NAMES, KILLED_SECONDS) if not replicas else load.more(50, KILLED_SECONDS)
            master.start()
            until(cluster.is_whole, 60)
            load.more_of(NAMES, KILLED_SECONDS)
            load.more(300, 60)
    load.report(f"cluster, 12 masters killed, wait_replicas={replicas}")
    assert len(load.missing()) <= lost


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_slots_that_move_all_the_time(cluster: Cluster) -> None:
    load = load_on(cluster)
    with load.running():
        for round in range(30):
            name = NAMES[round % len(NAMES)]
            source = cluster.master_of(name)
            target = next(server for server in cluster.masters() if server is not source)
            cluster.move(name, target, pause_seconds=0.1 if round % 2 else 0.01)
            load.more_of(NAMES, GRACEFUL_SECONDS)
        cluster.reshard(2000)
        load.more_of(NAMES, GRACEFUL_SECONDS)
    load.report("cluster, 30 slots moved and 2000 by redis-cli")
    assert not load.missing()
    assert not load.doubled()
    assert load.losses["consumer"] == 0
