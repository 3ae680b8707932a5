"""Servers watched by Sentinels that change their roles, or die, while messages are published and consumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_support import command, role
from load import Load
from redis_support import Server, until
from sentinel_support import Watched

NAMES = ["queue0", "queue1"]

LEFT_SECONDS = 6.0
"""Within so long after the promotion a master that goes on is left."""

BACK_SECONDS = 12.0
"""Within so long after the promotion messages are delivered again."""


@pytest.fixture
def watched(tmp_path: Any) -> Iterator[Watched]:
    made = Watched(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def test_failover_by_sentinel_loses_nothing_that_a_replica_confirmed(watched: Watched) -> None:
    """The old master goes on as one for some ten seconds, and then drops what it was given; so publishing waits for
    the replica here.
    """
    load = Load(lambda: watched.connect(wait_replicas=1, wait_timeout=0.5), NAMES, watched.left)
    with load.running():
        old, new = watched.fail_over()
        until(lambda: "cmdstat_evalsha" in command(new, "INFO", "commandstats"), LEFT_SECONDS)
        load.more_of(NAMES, LEFT_SECONDS)
        assert role(old) == "master", "the clients have left it before it was told"
    load.report("failover by Sentinel")
    assert not load.missing()


def test_a_killed_master_loses_nothing_that_a_replica_confirmed(watched: Watched) -> None:
    load = Load(lambda: watched.connect(wait_replicas=1, wait_timeout=0.5), NAMES, watched.left)
    with load.running():
        watched.kill_master()
        load.more_of(NAMES, BACK_SECONDS)
    load.report("master killed")
    assert not load.missing()


@pytest.mark.soak
def test_masters_that_come_back_as_replicas_are_left_and_followed_again(watched: Watched) -> None:
    load = Load(lambda: watched.connect(wait_replicas=1, wait_timeout=0.5), NAMES, watched.left)
    with load.running():
        for round in range(6):
            if round % 2:
                old, new = watched.kill_master()
                old.start()  # a master again, until the Sentinels have told it
            else:
                old, new = watched.fail_over()
            until(lambda old=old: role(old) == "slave", 60)  # type: ignore[misc]
            until(lambda new=new: _is_followed(new), 30)  # type: ignore[misc]
            load.more_of(NAMES, BACK_SECONDS)
            load.more(200, 60)
    load.report("six changes of the master")
    assert not load.missing()


def _is_followed(master: Server) -> bool:
    return bool(command(master, "INFO", "replication")["connected_slaves"] == 1)


def test_a_connection_to_a_master_that_became_a_replica_is_left(watched: Watched) -> None:
    """Nobody closes it: the server answers READONLY."""
    load = Load(watched.connect, NAMES, watched.left)
    first, second = watched.servers
    with load.running():
        for sentinel in watched.sentinels:
            sentinel.kill()
        command(first, "FAILOVER", "TO", "127.0.0.1", second.port)
        until(lambda: role(first) == "slave" and role(second) == "master", 20)
        until(lambda: load.losses["consumer"] > 0 and load.losses["publisher"] > 0, 10)
        command(second, "FAILOVER", "TO", "127.0.0.1", first.port)
        until(lambda: role(first) == "master" and role(second) == "slave", 20)
        for sentinel in watched.sentinels:
            sentinel.launch_with(sentinel.folder / "sentinel.conf")
        load.more_of(NAMES, BACK_SECONDS)
    load.report("master made a replica")
    assert not load.missing()
    assert not load.doubled()
