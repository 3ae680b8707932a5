"""The cluster transport on a cluster of three servers that the test starts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Producer, Queue
from redis_support import Server, drain, until

from qbrokers.batching import Publication

TRANSPORT = "qbrokers.redis:ClusterTransport"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    servers = [Server(tmp_path_factory.mktemp(f"node{i}"), "--cluster-enabled", "yes") for i in range(3)]
    try:
        for server in servers:
            server.start()
        clients = [redis.Redis(port=server.port) for server in servers]
        for number, client in enumerate(clients):
            first, last = number * 5461, 16383 if number == 2 else (number + 1) * 5461 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        for client in clients:
            until(lambda client=client: b"cluster_state:ok" in _info(client), 20)  # type: ignore[misc]
            client.close()
        yield servers
    finally:
        for server in servers:
            server.kill()


def _info(client: Any) -> bytes:
    reply = client.execute_command("CLUSTER", "INFO")
    return reply if isinstance(reply, bytes) else json.dumps(reply).replace('": "', ":").encode()


def connect(servers: list[Server], **options: Any) -> Any:
    url = ";".join(f"redis://127.0.0.1:{server.port}" for server in servers)
    return Connection(url, transport=TRANSPORT, transport_options={"lease_seconds": 1.5, **options})


NAMES = [f"queue{i}" for i in range(6)]
QUEUES = [Queue(name, Exchange(name), routing_key=name) for name in NAMES]


def test_queues_on_all_servers_are_consumed_and_acknowledged(cluster: list[Server]) -> None:
    got: list[Any] = []
    with connect(cluster) as connection:
        producer = Producer(connection.channel())
        for name in NAMES:
            for i in range(20):
                producer.publish(f"{name}.{i}", routing_key=name, priority=i % 10)
        producer.publish("bound", exchange=QUEUES[0].exchange, routing_key=NAMES[0], declare=[QUEUES[0]])
        consumer = Consumer(
            connection.channel(), QUEUES, on_message=lambda m: (got.append(m.payload), m.ack())
        )
        consumer.qos(prefetch_count=5)
        consumer.consume()
        drain(connection, 10, lambda: len(got) == 121)
        assert len(set(got)) == len(got) == 121
        consumer.channel.flush()
        consumer.cancel()
    assert held(cluster) == 0


def held(servers: list[Server]) -> int:
    total = 0
    for server in servers:
        with redis.Redis(port=server.port) as client:
            total += sum(client.hlen(key) for key in client.scan_iter("unacked.*"))
    return total


def test_a_waiting_consumer_hears_of_a_push_on_any_server(cluster: list[Server]) -> None:
    with connect(cluster) as connection, connect(cluster) as other:
        got: list[float] = []
        with Consumer(
            connection.channel(), QUEUES, on_message=lambda m: (got.append(time.monotonic()), m.ack())
        ):
            drain(connection, 0.5)
            for number, name in enumerate(NAMES, 1):
                begun = time.monotonic()
                Producer(other.channel()).publish("x", routing_key=name)
                drain(connection, 3, lambda number=number: len(got) == number)  # type: ignore[misc]
                assert got[-1] - begun < 0.1


def test_delay_dead_letters_batches_and_broadcasts(cluster: list[Server]) -> None:
    exchange = Exchange("news", type="fanout")
    with connect(cluster) as connection:
        channel = connection.channel()
        heard: list[Any] = []
        got: list[Any] = []
        listener = Queue("listener", exchange, auto_delete=True)
        with (
            Consumer(channel, [listener], on_message=heard.append, no_ack=True),
            Consumer(channel, QUEUES, on_message=got.append),
        ):
            drain(connection, 0.5)
            channel.publish_many(
                [
                    Publication(channel.prepare_message(name, None, "text/plain", "utf-8"), "", name)
                    for name in NAMES
                ]
            )
            due = time.time() + 0.5
            Producer(channel).publish("later", routing_key=NAMES[1], eta_timestamp=due)
            Producer(channel, exchange=exchange).publish("all")
            drain(connection, 5, lambda: len(got) == 7 and len(heard) == 1)
            assert got[-1].payload == "later"
            assert 0 <= time.time() - due < 0.3
            channel.dead_letter(got[0].delivery_tag, "why")
            for message in got[1:]:
                message.ack()
            channel.flush()
        aside = channel.basic_get(f"{got[0].payload}.dead")
        assert aside.headers["x-dead-letter-reason"] == "why"
        aside.ack()
    assert held(cluster) == 0


def test_what_a_dead_process_held_comes_back(cluster: list[Server]) -> None:
    lost = connect(cluster)
    got: list[Any] = []
    with connect(cluster) as connection:
        for name in NAMES[:3]:
            Producer(connection.channel()).publish(name, routing_key=name)
    consumer = Consumer(lost.channel(), QUEUES, on_message=got.append)
    consumer.consume()
    drain(lost, 5, lambda: len(got) == 3)
    # What a killed process leaves: nobody renews the lease, nobody holds the messages.
    lost.transport.session.lost = True
    lost.close()
    got.clear()
    del consumer
    with connect(cluster) as connection, Consumer(connection.channel(), QUEUES, on_message=got.append):
        drain(connection, 8, lambda: len(got) == 3)
        assert sorted(m.payload for m in got) == NAMES[:3]
        for message in got:
            message.ack()
        connection.default_channel.flush()
        until(lambda: held(cluster) == 0, 3)
