"""Processes killed, servers restarted, connections cut and frozen: nothing is lost, and nothing held comes
twice.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kombu import Consumer, Exchange, Producer, Queue
from kombu.exceptions import OperationalError
from proxy import Proxy
from redis_support import Broker, Server, drain, until

from qbrokers.batching import Publication
from qbrokers.redis.wire import CONNECTION_ERRORS

QUEUE = Queue("jobs")


def publish_many(connection: Any, bodies: list[str], **properties: Any) -> None:
    channel = connection.channel()
    channel.publish_many(
        [
            Publication(
                channel.prepare_message(
                    body, None, "text/plain", "utf-8", {}, {"delivery_mode": 2, **properties}
                ),
                "",
                "jobs",
            )
            for body in bodies
        ]
    )


@contextmanager
def victim(broker: Broker, hold_seconds: float, prefetch: int) -> Iterator[subprocess.Popen[bytes]]:
    script = Path(__file__).with_name("victim.py")
    command = [sys.executable, str(script), broker.url, broker.prefix, str(hold_seconds), str(prefetch)]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def effects(broker: Broker, name: str = "effects") -> list[str]:
    return [item.decode() for item in broker.client.lrange(broker.prefix + name, 0, -1)]


def kill_at_random(broker: Broker, kills: int, messages: int) -> None:
    """Victims are killed at random moments; the survivors do everything, each message at least once."""
    with broker.connect() as connection:
        publish_many(connection, [str(i) for i in range(messages)])
    rng = random.Random(4)
    for _ in range(kills):
        before = len(effects(broker, "begun"))
        with victim(broker, 0.002, 8):
            until(lambda before=before: len(effects(broker, "begun")) > before, 20)  # type: ignore[misc]
            time.sleep(rng.random() * 0.05)  # the moment of the kill is what is varied
    with victim(broker, 0.0, 8):
        until(lambda: len(set(effects(broker))) == messages and broker.held() == 0, 40)
    assert broker.client.llen(broker.prefix + "jobs") == 0
    doubled = [body for body, count in Counter(effects(broker)).items() if count > 1]
    # A message can have had its effect when the kill came before its acknowledgement: one per kill.
    assert len(doubled) <= kills


def test_kill_9_at_random_moments_loses_nothing(broker: Broker) -> None:
    kill_at_random(broker, kills=3, messages=150)


@pytest.mark.soak
def test_fifty_kills_lose_nothing(broker: Broker) -> None:
    kill_at_random(broker, kills=50, messages=3000)


def test_what_a_dead_process_held_comes_back_once_within_the_lease(broker: Broker) -> None:
    with broker.connect() as connection:
        publish_many(connection, ["a", "b"])
    with victim(broker, 60, 2) as process:
        until(lambda: broker.held() == 2, 20)
        process.kill()
        killed = time.monotonic()
    got: list[Any] = []
    with (
        broker.connect(lease_seconds=1.5) as connection,
        Consumer(connection.channel(), [QUEUE], on_message=got.append),
    ):
        drain(connection, 6, lambda: len(got) == 2)
        # Its own lease, and the next look of a living process.
        assert time.monotonic() - killed < 1.5 + 0.5 + 1
        drain(connection, 1)
    assert sorted(m.payload for m in got) == ["a", "b"]
    assert {m.headers["x-delivery-count"] for m in got} == {1}


def test_a_message_held_three_times_the_lease_is_delivered_once(broker: Broker) -> None:
    """The program does not touch its connection all the while, as a solo worker in a long task."""
    with broker.connect(lease_seconds=1) as connection:
        publish_many(connection, ["long"])
    with victim(broker, 5, 1):
        until(lambda: broker.held() == 1, 20)
        got: list[Any] = []
        with (
            broker.connect(lease_seconds=1.5) as connection,
            Consumer(connection.channel(), [QUEUE], on_message=got.append),
        ):
            drain(connection, 4.6)
        assert got == []
        until(lambda: effects(broker) == ["long"] and broker.held() == 0, 5)
    assert effects(broker, "begun") == ["long"]


def test_a_cut_connection_keeps_what_is_held_and_its_acks_are_valid_on_the_next(broker: Broker) -> None:
    port = int(broker.client.connection_pool.connection_kwargs["port"])
    database = int(broker.client.connection_pool.connection_kwargs["db"])
    with Proxy("127.0.0.1", port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/{database}"
        with broker.connect() as connection:
            publish_many(connection, ["running", "dropped"])
        lost = broker.connect(url)
        got: list[Any] = []
        consumer = Consumer(lost.channel(), [QUEUE], on_message=got.append)
        consumer.consume()
        drain(lost, 5, lambda: len(got) == 2)
        proxy.cut()
        with pytest.raises(CONNECTION_ERRORS):
            drain(lost, 5)
        lost.close()
        running, _ = got
        del got[:], consumer, _  # the program goes on with the first message only
        again: list[Any] = []
        with (
            broker.connect(url) as connection,
            Consumer(connection.channel(), [QUEUE], on_message=again.append),
        ):
            drain(connection, 8, lambda: len(again) == 1)
            assert [m.payload for m in again] == ["dropped"]
            drain(connection, 4)
            assert len(again) == 1, "the message in work was delivered a second time"
            running.ack()
            again[0].ack()
            until(lambda: broker.held() == 0, 3)
        assert broker.client.llen(broker.prefix + "jobs") == 0


def test_connections_cut_again_and_again_lose_nothing(broker: Broker) -> None:
    parameters = broker.client.connection_pool.connection_kwargs
    done: Counter[str] = Counter()
    with Proxy("127.0.0.1", int(parameters["port"])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/{parameters['db']}"
        with broker.connect() as connection:
            publish_many(connection, [str(i) for i in range(2000)])
        deadline = time.monotonic() + 40
        rng = random.Random(7)
        while (len(done) < 2000 or broker.held()) and time.monotonic() < deadline:
            timer = threading.Timer(rng.random() * 0.3 + 0.05, proxy.cut)
            timer.start()
            try:
                with broker.connect(url, lease_seconds=1.5) as connection:
                    consumer = Consumer(
                        connection.channel(),
                        [QUEUE],
                        on_message=lambda m: (done.update([m.payload]), m.ack()),
                    )
                    consumer.qos(prefetch_count=10)
                    consumer.consume()
                    drain(connection, 1, lambda: len(done) == 2000)
            except CONNECTION_ERRORS:
                pass
            timer.join()
        until(lambda: broker.held() == 0, 5)
    assert len(done) == 2000
    assert broker.client.llen(broker.prefix + "jobs") == 0
    # Acknowledged in the process, so an acknowledgement that was under way when the connection was cut is
    # sent again.
    assert sum(done.values()) == 2000


def test_a_frozen_connection_is_noticed_within_fifteen_seconds(broker: Broker) -> None:
    parameters = broker.client.connection_pool.connection_kwargs
    with Proxy("127.0.0.1", int(parameters["port"])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/{parameters['db']}"
        connection = broker.connect(url, socket_timeout=3, health_check_interval=1)
        Consumer(connection.channel(), [QUEUE], on_message=lambda m: m.ack()).consume()
        drain(connection, 0.3)
        proxy.freeze()
        begun = time.monotonic()
        with pytest.raises(CONNECTION_ERRORS):
            drain(connection, 15)
        assert time.monotonic() - begun < 6
        connection.close()
        assert time.monotonic() - begun < 8, "closing a lost connection waits for nobody"
        begun = time.monotonic()
        with (
            pytest.raises((OperationalError, *CONNECTION_ERRORS)),
            broker.connect(url, socket_connect_timeout=1, socket_timeout=1) as other,
        ):
            Producer(other.channel()).publish("x", routing_key="jobs")
        assert time.monotonic() - begun < 10
        proxy.thaw()


def test_a_server_restarted_in_mid_load_loses_nothing(server: Server) -> None:
    broker = Broker(server.url)
    sent: list[str] = []
    done: Counter[str] = Counter()
    stop = threading.Event()

    def produce() -> None:
        number = 0
        while not stop.is_set():
            try:
                with broker.connect() as connection:
                    producer = Producer(connection.channel())
                    while not stop.is_set():
                        producer.publish(str(number), routing_key="jobs", content_type="text/plain")
                        sent.append(str(number))
                        number += 1
                        stop.wait(0.002)
            except (OperationalError, *CONNECTION_ERRORS):
                number += 1
                stop.wait(0.05)

    thread = threading.Thread(target=produce)
    thread.start()
    deadline = time.monotonic() + 40
    restarts = [time.monotonic() + 1.5, time.monotonic() + 4]
    try:
        while time.monotonic() < deadline:
            try:
                with broker.connect() as connection:
                    consumer = Consumer(
                        connection.channel(),
                        [QUEUE],
                        on_message=lambda m: (done.update([m.payload]), m.ack()),
                    )
                    consumer.qos(prefetch_count=16)
                    consumer.consume()
                    while time.monotonic() < deadline:
                        drain(connection, 0.1)
                        if restarts and time.monotonic() > restarts[0]:
                            restarts.pop(0)
                            server.kill()
                            server.start()
                        if not restarts and len(sent) > 300:
                            stop.set()
                        if stop.is_set() and set(sent) <= set(done) and not broker.held():
                            deadline = 0
            except (OperationalError, *CONNECTION_ERRORS):
                stop.wait(0.1)
    finally:
        stop.set()
        thread.join()
    assert set(sent) <= set(done)
    assert max(done.values()) == 1
    broker.client.close()


def test_a_hundred_thousand_delayed_messages_cost_a_consumer_no_memory(broker: Broker) -> None:
    with broker.connect() as connection:
        due = time.time() + 3600
        for start in range(0, 100_000, 20_000):
            publish_many(connection, [str(i) for i in range(start, start + 20_000)], eta_timestamp=due)
        assert broker.client.zcard(broker.prefix + "_qbrokers.delayed.jobs") == 100_000
        with Consumer(connection.channel(), [QUEUE], on_message=lambda m: m.ack()):
            drain(connection, 0.5)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            drain(connection, 1.5)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024
        assert broker.client.zcard(broker.prefix + "_qbrokers.delayed.jobs") == 100_000


def test_a_forked_child_uses_no_socket_of_its_parent(broker: Broker) -> None:
    import os

    with broker.connect() as connection:
        channel = connection.channel()
        Producer(channel).publish("parent", routing_key="jobs")
        message = channel.basic_get("jobs")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                Producer(channel).publish("child", routing_key="jobs")
                channel.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert broker.held() == 1, "the child handed back what its parent holds"
        assert channel.basic_get("jobs").payload == "child"
        message.ack()
        channel.flush()


def test_clients_killed_all_the_time_cost_neither_cpu_nor_descriptors(broker: Broker) -> None:
    def open_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def kill_ours() -> None:
        for client in broker.client.client_list():
            if client["name"] == broker.prefix:
                broker.client.client_kill_filter(_id=client["id"])

    got: list[Any] = []
    before, used, begun = open_descriptors(), time.process_time(), time.monotonic()
    losses = 0
    while time.monotonic() - begun < 3:
        try:
            with (
                broker.connect(client_name=broker.prefix) as connection,
                Consumer(connection.channel(), [QUEUE], on_message=lambda m: (got.append(m), m.ack())),
            ):
                drain(connection, 0.2)
                kill_ours()
                drain(connection, 2)
        except CONNECTION_ERRORS:
            losses += 1
    assert losses > 5
    assert (time.process_time() - used) / (time.monotonic() - begun) < 0.3
    publish_many_and_take(broker, got)
    assert open_descriptors() <= before + 3


def publish_many_and_take(broker: Broker, got: list[Any]) -> None:
    with (
        broker.connect() as connection,
        Consumer(connection.channel(), [QUEUE], on_message=lambda m: (got.append(m), m.ack())),
    ):
        publish_many(connection, ["a", "b"])
        drain(connection, 5, lambda: len(got) == 2)


def test_thousands_held_go_back_in_order(broker: Broker) -> None:
    bodies = [str(i) for i in range(1700)]
    with broker.connect() as connection:
        publish_many(connection, bodies)
        got: list[Any] = []
        with Consumer(connection.channel(), [QUEUE], on_message=got.append):
            drain(connection, 10, lambda: len(got) == 1700)
    with broker.connect() as connection:
        again: list[Any] = []
        with Consumer(connection.channel(), [QUEUE], on_message=lambda m: (again.append(m.payload), m.ack())):
            drain(connection, 10, lambda: len(again) == 1700)
        assert again == bodies


def test_closing_after_an_unnoticed_cut_keeps_what_is_held(broker: Broker) -> None:
    parameters = broker.client.connection_pool.connection_kwargs
    listener = Queue("listener", Exchange("news", type="fanout"), auto_delete=True)
    with Proxy("127.0.0.1", int(parameters["port"])) as proxy:
        connection = broker.connect(f"redis://127.0.0.1:{proxy.port}/{parameters['db']}")
        publish_many(connection, ["a"])
        got: list[Any] = []
        consumer = Consumer(connection.channel(), [QUEUE, listener], on_message=got.append)
        consumer.consume()
        drain(connection, 5, lambda: bool(got))
        proxy.refuse()
        connection.close()
        proxy.accept()
        time.sleep(1.5)  # long enough for the keeper to give the message back, were it dropped
        assert broker.held() == 1
        got[0].ack()
        until(lambda: broker.held() == 0, 5)
    assert broker.client.llen(broker.prefix + "jobs") == 0
