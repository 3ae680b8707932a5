"""Publishing that waits until replicas have the messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_support import command
from kombu import Connection, Producer
from redis_support import OURS, Server, until

from qbrokers.batching import Publication
from qbrokers.redis.errors import NotReplicated


@pytest.fixture
def replica(server: Server, tmp_path: Path) -> Iterator[Server]:
    place = tmp_path / "replica"
    place.mkdir()
    command(server, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
    made = Server(place, "--replicaof", "127.0.0.1", str(server.port), "--appendonly", "no")
    made.start()
    until(lambda: command(made, "ROLE")[3] == "connected", 10)
    yield made
    made.kill()


def connect(server: Server, **options: Any) -> Any:
    return Connection(server.url, transport=OURS, transport_options={"wait_replicas": 1, **options})


def waits(server: Server) -> int:
    """How often the server was asked to wait."""
    stats = command(server, "INFO", "commandstats")
    return int(stats["cmdstat_wait"]["calls"]) if "cmdstat_wait" in stats else 0


def test_a_message_is_on_the_replica_when_publishing_returns(server: Server, replica: Server) -> None:
    with connect(server) as connection:
        Producer(connection.channel()).publish("a", routing_key="jobs")
        assert command(replica, "LLEN", "jobs") == 1


def test_a_batch_waits_once(server: Server, replica: Server) -> None:
    with connect(server) as connection:
        channel = connection.channel()
        made = [channel.prepare_message(str(i), i % 10, "text/plain", "utf-8") for i in range(500)]
        channel.publish_many([Publication(message, "", "jobs") for message in made])
        assert waits(server) == 1
        assert sum(command(replica, "LLEN", name) for name in channel.keys.lists("jobs")) == 500


def test_without_a_replica_the_sender_is_told_and_the_message_is_there_once(server: Server) -> None:
    with connect(server, wait_timeout=0.2) as connection:
        producer = Producer(connection.channel())
        with pytest.raises(NotReplicated, match="only 0 of 1 replicas"):
            producer.publish("a", routing_key="jobs", retry=True, retry_policy={"max_retries": 3})
        assert command(server, "LLEN", "jobs") == 1
        assert connection.connected
        producer.publish("news", routing_key="jobs", delivery_mode="transient")
        assert waits(server) == 1, "what may be lost is not waited for"


def test_nobody_waits_unless_told_to(server: Server) -> None:
    with Connection(server.url, transport=OURS) as connection:
        Producer(connection.channel()).publish("a", routing_key="jobs")
    assert waits(server) == 0
