"""The event dispatcher on a real in-memory broker."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu.clocks import LamportClock

from qcore.events import EventDispatcher, event_exchange, group_of, make_event, routing_key_of


class Listener:
    """Takes every event message off the exchange."""

    def __init__(self, connection: Connection, exchange: str) -> None:
        self.channel = connection.channel()
        self.connection = connection
        self.messages: list[Any] = []
        queue = Queue(
            f"listen.{uuid.uuid4()}", Exchange(exchange, "topic"), routing_key="#", auto_delete=True
        )
        self.consumer = Consumer(
            self.channel, [queue], on_message=self.messages.append, no_ack=True, accept=["json"]
        )
        self.consumer.consume()

    def drain(self) -> list[Any]:
        while True:
            try:
                self.connection.drain_events(timeout=0.05)
            except TimeoutError:
                break
        taken, self.messages[:] = list(self.messages), []
        return taken


@pytest.fixture
def connection() -> Iterator[Connection]:
    with Connection("memory://") as connection:
        yield connection


@pytest.fixture
def exchange() -> str:
    return f"ev-{uuid.uuid4()}"


@pytest.fixture
def listener(connection: Connection, exchange: str) -> Listener:
    return Listener(connection, exchange)


class BrokenProducer:
    """A producer whose broker is away until `heal` is called."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.away = True
        self.tries = 0

    def revive(self, channel: Any) -> None:
        self.real.revive(channel)

    def publish(self, *args: Any, **kwargs: Any) -> None:
        self.tries += 1
        if self.away:
            raise ConnectionResetError("broker away")
        self.real.publish(*args, **kwargs)


def test_make_event_adds_type_and_timestamp() -> None:
    before = time.time()
    event = make_event("task-sent", {"uuid": "1"})
    assert event["type"] == "task-sent"
    assert event["uuid"] == "1"
    assert before <= event["timestamp"] <= time.time()


def test_make_event_keeps_a_given_timestamp() -> None:
    assert make_event("x-y", {"timestamp": 5.0})["timestamp"] == 5.0


def test_group_and_routing_key() -> None:
    assert group_of("custom-my-event") == "custom"
    assert routing_key_of("custom-my-event") == "custom.my.event"


def test_exchange_is_topic_unless_the_broker_needs_fanout(connection: Connection) -> None:
    exchange = event_exchange(connection)
    assert (exchange.name, exchange.type, exchange.durable) == ("celeryev", "topic", True)
    assert event_exchange(Connection("redis://localhost"), "other").type == "fanout"


def test_single_event_is_an_object_with_the_common_fields(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    dispatcher = EventDispatcher(connection, "q@here", exchange=exchange, clock=LamportClock())
    dispatcher.send("worker-online", freq=2.0)
    (message,) = listener.drain()
    event = message.payload
    assert message.delivery_info["routing_key"] == "worker.online"
    assert message.headers == {"hostname": "q@here"}
    assert message.properties["delivery_mode"] == 1
    assert message.properties["priority"] == 0
    assert event["type"] == "worker-online"
    assert event["hostname"] == "q@here"
    assert event["pid"] == os.getpid()
    assert event["clock"] == 1
    assert event["utcoffset"] == (time.altzone if time.localtime().tm_isdst > 0 else time.timezone) / 3600
    assert event["freq"] == 2.0
    assert set(event) == {"type", "hostname", "utcoffset", "pid", "clock", "timestamp", "freq"}


def test_client_hostname_names_the_process(connection: Connection) -> None:
    assert EventDispatcher(connection).hostname == f"gen{os.getpid()}@{socket.gethostname()}"


def test_channel_instead_of_connection(connection: Connection, exchange: str, listener: Listener) -> None:
    dispatcher = EventDispatcher(channel=connection.channel(), hostname="q@c", exchange=exchange)
    dispatcher.send("worker-online")
    assert listener.drain()[0].payload["hostname"] == "q@c"


def test_neither_connection_nor_channel_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a connection or a channel"):
        EventDispatcher()


def test_blind_event_leaves_the_clock_alone(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    clock = LamportClock()
    EventDispatcher(connection, exchange=exchange, clock=clock).send("worker-x", blind=True)
    assert listener.drain()[0].payload["clock"] is None
    assert clock.value == 0


def test_utcoffset_can_be_passed(connection: Connection, exchange: str, listener: Listener) -> None:
    EventDispatcher(connection, exchange=exchange).send("worker-x", utcoffset=lambda: -5)
    assert listener.drain()[0].payload["utcoffset"] == -5


def test_events_of_other_groups_are_dropped(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, groups=["worker"])
    dispatcher.send("task-sent", uuid="1")
    dispatcher.send("worker-online")
    assert [message.payload["type"] for message in listener.drain()] == ["worker-online"]


def test_buffered_group_is_one_array_per_flush(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    calls: list[int] = []
    dispatcher = EventDispatcher(
        connection,
        exchange=exchange,
        buffer_group=["task"],
        buffer_limit=500,
        on_send_buffered=lambda: calls.append(1),
    )
    for number in range(300):
        dispatcher.send("task-started", uuid=str(number))
    assert listener.drain() == []
    assert dispatcher.buffered == 300
    dispatcher.flush()
    (message,) = listener.drain()
    assert message.delivery_info["routing_key"] == "task.multi"
    assert [event["uuid"] for event in message.payload] == [str(n) for n in range(300)]
    assert len(calls) == 300
    dispatcher.flush()
    assert listener.drain() == []


def test_full_buffer_flushes_itself(connection: Connection, exchange: str, listener: Listener) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, buffer_group=["task"], buffer_limit=3)
    for number in range(7):
        dispatcher.send("task-started", uuid=str(number))
    assert [len(message.payload) for message in listener.drain()] == [3, 3]
    assert dispatcher.buffered == 1


def test_disabled_sends_nothing_and_enable_starts(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, enabled=False)
    seen: list[str] = []
    dispatcher.on_enabled.add(lambda: seen.append("on"))
    dispatcher.on_disabled.add(lambda: seen.append("off"))
    dispatcher.send("worker-online")
    dispatcher.flush()
    dispatcher.disable()
    assert seen == []
    dispatcher.enable()
    dispatcher.send("worker-heartbeat")
    dispatcher.disable()
    dispatcher.send("worker-offline")
    assert seen == ["on", "off"]
    assert [message.payload["type"] for message in listener.drain()] == ["worker-heartbeat"]


def test_collected_events_survive_close_and_enable(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, buffer_group=["task"])
    dispatcher.send("task-started", uuid="1")
    dispatcher.close()
    dispatcher.flush()
    assert listener.drain() == []
    dispatcher.enable()
    dispatcher.flush()
    assert len(listener.drain()) == 1


def test_transport_without_events_stays_disabled(connection: Connection) -> None:
    assert not EventDispatcher(connection, driver_types_disabled=["memory"]).enabled


def test_events_wait_in_order_while_the_broker_is_away(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, buffer_group=["task"])
    producer = dispatcher.producer = BrokenProducer(dispatcher.producer)
    dispatcher.send("worker-online", n=1)
    dispatcher.send("task-started", uuid="a")
    dispatcher.flush()
    dispatcher.send("worker-heartbeat", n=2)
    dispatcher.send("task-started", uuid="b")
    tries = producer.tries
    dispatcher.flush()
    assert producer.tries == tries + 1, "one try tells that the broker is away"
    producer.away = False
    dispatcher.flush()
    kinds = [
        m.payload["type"] if isinstance(m.payload, dict) else [e["uuid"] for e in m.payload]
        for m in listener.drain()
    ]
    assert kinds == ["worker-online", "worker-heartbeat", ["a", "b"]]
    assert dispatcher.buffered == 0


def test_an_event_does_not_overtake_those_that_wait(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange)
    producer = dispatcher.producer = BrokenProducer(dispatcher.producer)
    dispatcher.send("worker-x", n=1)
    dispatcher.send("worker-x", n=2)
    producer.away = False
    dispatcher.send("worker-x", n=3)
    assert [message.payload["n"] for message in listener.drain()] == [1, 2, 3]


def test_outbox_is_bounded_and_says_so(
    connection: Connection, exchange: str, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, outbox_limit=3)
    producer = dispatcher.producer = BrokenProducer(dispatcher.producer)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            dispatcher.send("worker-x", n=number)
    assert "1 events dropped" in caplog.text
    assert dispatcher.buffered == 3
    producer.away = False
    dispatcher.flush()
    assert [message.payload["n"] for message in listener.drain()] == [2, 3, 4]


def test_without_offline_buffer_the_error_is_raised(connection: Connection, exchange: str) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, buffer_while_offline=False)
    dispatcher.producer = BrokenProducer(dispatcher.producer)
    with pytest.raises(ConnectionResetError):
        dispatcher.send("worker-online")


def test_extend_buffer_takes_over_what_another_could_not_send(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    old = EventDispatcher(connection, exchange=exchange, buffer_group=["task"])
    old.producer = BrokenProducer(old.producer)
    old.send("worker-online")
    old.send("task-started", uuid="a")
    new = EventDispatcher(connection, exchange=exchange)
    new.extend_buffer(old)
    assert (old.buffered, new.buffered) == (0, 2)
    new.flush()
    assert len(listener.drain()) == 2


def test_unencodable_event_is_dropped_and_its_neighbours_are_sent(
    connection: Connection, exchange: str, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, buffer_group=["task"])
    dispatcher.send("task-a", uuid="1")
    dispatcher.send("task-b", uuid=object())
    dispatcher.send("task-c", uuid="3")
    dispatcher.flush()
    assert [[e["type"] for e in m.payload] for m in listener.drain()] == [["task-a"], ["task-c"]]
    assert "Event task-b dropped" in caplog.text
    assert dispatcher.buffered == 0


def test_publish_uses_the_given_producer_even_when_disabled(
    connection: Connection, exchange: str, listener: Listener
) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, enabled=False)
    with connection.Producer() as producer:
        dispatcher.publish("task-sent", {"uuid": "1"}, producer, retry=True)
    assert listener.drain()[0].payload["uuid"] == "1"


def test_threads_lose_and_double_nothing(connection: Connection, exchange: str, listener: Listener) -> None:
    dispatcher = EventDispatcher(connection, exchange=exchange, buffer_group=["task"], buffer_limit=7)

    def work(thread: int) -> None:
        for number in range(100):
            dispatcher.send("task-started", uuid=f"{thread}-{number}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    dispatcher.flush()
    uuids = [event["uuid"] for message in listener.drain() for event in message.payload]
    assert sorted(uuids) == sorted(f"{t}-{n}" for t in range(4) for n in range(100))


def test_importing_events_leaves_kombu_out() -> None:
    import subprocess
    import sys

    code = "import sys, qcore.events; print('kombu' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.strip().lower()) is False


def test_a_broker_that_is_away_is_not_asked_again_at_once() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    with Connection(f"amqp://127.0.0.1:{port}//") as connection:
        dispatcher = EventDispatcher(connection)
        dispatcher.send("worker-online")
        started = time.monotonic()
        for _ in range(100):
            dispatcher.send("worker-heartbeat")
            dispatcher.flush()
        assert time.monotonic() - started < 5
        assert dispatcher.buffered == 101
        dispatcher.close()
