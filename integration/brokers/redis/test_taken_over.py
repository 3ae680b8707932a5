"""A server that comes back with older books, as a replica does that missed the last words of its master."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_support import command
from kombu import Connection, Consumer, Producer, Queue
from redis_support import OURS, Server, drain, until

from qbrokers.redis.wire import CONNECTION_ERRORS

QUEUE = Queue("jobs")
LEASE_SECONDS = 30.0


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[Server]:
    """A server that forgets what it was told after its last snapshot."""
    made = Server(tmp_path, "--appendonly", "no")
    made.start()
    yield made
    made.kill()


def connect(server: Server) -> Any:
    return Connection(server.url, transport=OURS, transport_options={"lease_seconds": LEASE_SECONDS})


def test_an_acknowledgement_that_a_new_master_missed_is_made_good_while_the_owner_works_on(
    snapshots: Server,
) -> None:
    got: list[Any] = []
    lost = connect(snapshots)
    for body in ("long", "short"):
        Producer(lost.default_channel).publish(body, routing_key="jobs")
    consumer = Consumer(lost.channel(), [QUEUE], on_message=got.append)
    consumer.consume()
    drain(lost, 5, lambda: len(got) == 2)
    # The keeper has seen the server that is replaced.
    until(
        lambda: any(key.startswith("!") for key in command(snapshots, "ZRANGE", "_qbrokers.owners", 0, -1)), 5
    )
    command(snapshots, "SAVE")
    got.pop().ack()
    consumer.channel.flush()
    assert command(snapshots, "HLEN", "unacked") == 1
    snapshots.kill()
    snapshots.start()
    assert command(snapshots, "HLEN", "unacked") == 2
    with pytest.raises(CONNECTION_ERRORS):
        drain(lost, 5)
    lost.close()
    again: list[Any] = []
    with connect(snapshots) as connection, Consumer(connection.channel(), [QUEUE], on_message=again.append):
        drain(connection, LEASE_SECONDS / 3, lambda: bool(again))
        assert [(m.payload, m.headers["x-delivery-count"]) for m in again] == [("short", 1)]
        again[0].ack()
        got[0].ack()
        until(lambda: command(snapshots, "HLEN", "unacked") == 0, 5)
