"""What only the SQLite broker promises about queues and messages."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from kombu.asynchronous import Hub
from kombu.exceptions import ChannelError
from sqlite_support import connect, publish, queue, wait_for

from qbrokers.testing import drain_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def connection(path: Path) -> Iterator[Any]:
    with connect(path) as connection:
        yield connection


def size(connection: Any, name: str = "q") -> int:
    return connection.default_channel.queue_declare(name, passive=True).message_count


def rows(path: Path, table: str) -> int:
    database = sqlite3.connect(path)
    try:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        database.close()


def test_returned_message_goes_first(connection: Any) -> None:
    for number in range(3):
        publish(connection, number)
    bound = queue()(connection.default_channel)
    bound.get().requeue()
    assert [bound.get(no_ack=True).decode() for _ in range(3)] == [0, 1, 2]


def test_expired_message_is_not_delivered(connection: Any) -> None:
    publish(connection, "late", expiration=0.001)
    publish(connection, "in time", expiration=60)
    time.sleep(0.005)
    bound = queue()(connection.default_channel)
    assert bound.get(no_ack=True).decode() == "in time"
    assert bound.get() is None


def test_task_that_says_when_it_expires_is_delivered_for_its_consumer_to_report(connection: Any) -> None:
    publish(
        connection,
        1,
        expiration=0.001,
        headers={"task": "t", "id": "1", "expires": "2020-01-01T00:00:00+00:00"},
    )
    time.sleep(0.005)
    assert queue()(connection.default_channel).get(no_ack=True).decode() == 1


def test_expired_messages_of_a_queue_without_consumers_are_dropped(connection: Any, path: Path) -> None:
    brief = kombu.Queue("brief", kombu.Exchange("brief"), "brief", message_ttl=0.001)(
        connection.default_channel
    )
    brief.declare()
    connection.Producer().publish(1, exchange="brief", routing_key="brief")
    time.sleep(0.005)
    connection.connection.store.tidy()
    assert rows(path, "message") == rows(path, "ready") == 0


def test_unused_queue_expires(connection: Any) -> None:
    kombu.Queue("brief", expires=0.001)(connection.default_channel).declare()
    time.sleep(0.005)
    connection.connection.store.tidy()
    with pytest.raises(ChannelError):
        size(connection, "brief")


def test_consumed_queue_does_not_expire(connection: Any) -> None:
    brief = kombu.Queue("brief", expires=0.001)
    with connection.Consumer([brief], callbacks=[print]):
        time.sleep(0.005)
        connection.connection.store.tidy()
        assert size(connection, "brief") == 0


def test_temporary_queue_goes_with_its_last_consumer(connection: Any) -> None:
    temporary = kombu.Queue("t", auto_delete=True)
    first, second = connection.Consumer([temporary]), connection.Consumer([temporary])
    first.consume()
    second.consume()
    first.cancel()
    assert size(connection, "t") == 0
    second.cancel()
    with pytest.raises(ChannelError):
        size(connection, "t")


def test_temporary_queue_goes_with_a_closed_connection(connection: Any, path: Path) -> None:
    with connect(path) as other:
        other.Consumer([kombu.Queue("t", auto_delete=True)]).consume()
        assert size(connection, "t") == 0
    with pytest.raises(ChannelError):
        size(connection, "t")


def test_number_of_consumers_is_reported(connection: Any) -> None:
    channel = connection.default_channel
    with connection.Consumer([queue()]):
        assert channel.queue_declare("q").consumer_count == 1
    assert channel.queue_declare("q").consumer_count == 0


def test_unknown_exchange_is_an_error(connection: Any) -> None:
    with pytest.raises(ChannelError, match="declare it before publishing"):
        connection.Producer().publish(1, exchange="nowhere", routing_key="k")


def test_exchange_keeps_its_type(connection: Any) -> None:
    channel = connection.default_channel
    channel.exchange_declare("e", "direct")
    channel.exchange_declare("e", "direct")
    with pytest.raises(ChannelError, match="is of type direct, not topic"):
        channel.exchange_declare("e", "topic")
    with pytest.raises(ChannelError, match="headers"):
        channel.exchange_declare("h", "headers")


def test_message_without_a_binding_goes_to_the_deadletter_queue(path: Path) -> None:
    with connect(path, deadletter_queue="lost") as connection:
        publish(connection, 1)
        connection.Producer().publish(2, exchange="q", routing_key="unbound")
        assert connection.default_channel.basic_get("lost", no_ack=True).decode() == 2


@pytest.mark.parametrize(("strategy", "expected"), [("priority", "bbaa"), ("sorted", "aabb")])
def test_order_of_queues(path: Path, strategy: str, expected: str) -> None:
    with connect(path, queue_order_strategy=strategy) as connection:
        for name in "abab":
            publish(connection, name, name)
        channel = connection.channel()
        channel.basic_qos(0, 1, False)
        got: list[str] = []

        def take(message: Any) -> None:
            got.append(message.decode())
            message.ack()

        with kombu.Consumer(channel, [queue("b"), queue("a")], on_message=take):
            drain_until(connection, lambda: len(got) == 4)
    assert "".join(got) == expected


def test_unseen_messages_of_a_no_ack_consumer_are_not_lost(connection: Any) -> None:
    for number in range(5):
        publish(connection, number)
    got: list[Any] = []
    with connection.Consumer([queue()], on_message=got.append, no_ack=True):
        connection.drain_events(timeout=5)
    assert len(got) == 1
    assert size(connection) == 4
    message = queue()(connection.default_channel).get(no_ack=True)
    assert (message.decode(), message.headers["x-delivery-count"]) == (1, 0)


def test_acknowledgement_leaves_although_the_program_never_drains_again(connection: Any, path: Path) -> None:
    publish(connection, 1)
    queue()(connection.default_channel).get().ack()
    wait_for(lambda: rows(path, "message") == 0)


def test_settling_twice_is_an_error(connection: Any) -> None:
    publish(connection, 1)
    message = queue()(connection.default_channel).get()
    message.ack()
    with pytest.raises(ChannelError, match="unknown delivery tag"):
        message.channel.basic_ack(message.delivery_tag)


def test_body_must_be_serialized(connection: Any) -> None:
    channel = connection.default_channel
    with pytest.raises(TypeError, match="serialize it first"):
        channel.basic_publish(channel.prepare_message({"a": 1}), exchange="", routing_key="q")


def test_bindings_are_listed(connection: Any) -> None:
    queue()(connection.default_channel).declare()
    assert connection.get_manager().get_bindings() == [
        {"destination": "q", "source": "q", "routing_key": "q"}
    ]


def test_loop_sits_out_a_foreign_lock(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    with connect(path, busy_timeout_seconds=0.05, poll_seconds=0.1) as connection:
        publish(connection, 1)
        connection.register_with_event_loop(hub)
        got: list[Any] = []
        kombu.Consumer(connection.channel(), [queue()], on_message=got.append).consume()
        while not got:
            hub.run_once()
        foreign = sqlite3.connect(path, isolation_level=None)
        foreign.execute("BEGIN EXCLUSIVE")
        with caplog.at_level(logging.INFO, "qbrokers"):
            got[0].ack()
            hub.run_once()
            hub.run_once()
            foreign.execute("ROLLBACK")
            foreign.close()
            deadline = time.monotonic() + 10
            while rows(path, "message"):
                assert time.monotonic() < deadline
                hub.run_once()
        assert "Acknowledgements are kept" in caplog.text
        assert "works again" in caplog.text
        assert connection.connected
    hub.close()
