"""A cluster whose servers fail over, die and exchange slots while messages are published and consumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_support import NAMES, Cluster
from load import Load

from qcore.kombu_connection import BrokerConnection

GRACEFUL_SECONDS = 5.0
"""How long a queue may be silent while its master hands over (the health check interval is four)."""

KILLED_SECONDS = 12.0
"""The same when the master was killed: a node timeout, the election, and opening connections again."""


@pytest.fixture
def cluster(tmp_path: Any) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def load_on(cluster: Cluster, **options: Any) -> Load:
    def connect() -> Any:
        settings = {"lease_seconds": 4, "socket_timeout": 3, **options}
        return BrokerConnection(cluster.url, transport_options=settings)

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
