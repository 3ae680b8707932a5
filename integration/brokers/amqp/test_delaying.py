"""Delayed delivery on a real RabbitMQ, beside that of kombu, which Celery uses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu.transport import native_delayed_delivery as stock

from qbrokers.amqp import ladder
from qbrokers.testing import Target
from qbrokers.testing.harness import collect, drain_until, is_silent, publish
from qbrokers.testing.untyped import kombu

Connect = Callable[..., Any]


@pytest.fixture
def topic_queue(connect: Connect) -> Iterator[Any]:
    """A quorum queue on a topic exchange: what Celery sends its delayed messages to."""
    name = f"amqp-test-{uuid.uuid4().hex[:12]}"
    yield kombu.Queue(
        name, kombu.Exchange(name, type="topic"), name, queue_arguments={"x-queue-type": "quorum"}
    )
    channel = connect().channel()
    channel.queue_delete(name)
    channel.exchange_delete(name)


def test_delay_queues_are_those_of_celery(target: Target, connect: Connect, queue: Any) -> None:
    channel = connect().channel()
    publish(channel, queue(channel), 1, eta_timestamp=time.time() + 1)
    with kombu.Connection(target.url) as connection:
        # A queue with other arguments would be refused.
        stock.declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")


def test_message_that_celery_delays_reaches_our_consumer(
    target: Target, connect: Connect, topic_queue: Any
) -> None:
    connection = connect()
    channel = connection.channel()
    got: list[Any] = []
    with kombu.Consumer(channel, [topic_queue], on_message=got.append):
        with kombu.Connection(target.url) as client:
            key = stock.calculate_routing_key(2, topic_queue.routing_key)
            kombu.Producer(client.channel()).publish("later", exchange="celery_delayed_27", routing_key=key)
            begun = time.monotonic()
        drain_until(connection, lambda: got)
    assert time.monotonic() - begun > 1.5
    assert got[0].decode() == "later"
    assert got[0].delivery_info["routing_key"] == topic_queue.name
    assert "x-death" not in got[0].headers
    got[0].ack()


def test_task_of_a_stock_client_waits_in_the_broker_and_arrives_once(
    target: Target, connect: Connect, queue: Any
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=8)
    with kombu.Connection(target.url) as client:
        kombu.Producer(client.channel()).publish(
            {"n": 1},
            exchange=queue.exchange,
            routing_key=queue.routing_key,
            headers={"id": "1", "task": "t", "eta": due.isoformat()},
        )
    connection = connect()
    channel = connection.channel()
    got: list[Any] = []
    with kombu.Consumer(channel, [queue(channel)], on_message=got.append):
        assert is_silent(connection, 2)
        looking = connect().channel()
        assert looking.queue_declare(queue.name, passive=True).message_count == 0
        assert len(channel.book) == 0
        drain_until(connection, lambda: got, seconds=15)
        # A worker holds it for the last second.
        assert due - timedelta(seconds=1.5) < datetime.now(UTC) < due + timedelta(seconds=2)
        assert is_silent(connection, 1)
    assert got[0].delivery_info["exchange"] == ""
    assert got[0].delivery_info["routing_key"] == queue.name
    got[0].ack()


def test_queues_whose_names_end_alike_do_not_get_each_others_messages(connect: Connect) -> None:
    word = uuid.uuid4().hex[:12]
    channel = connect().channel()
    queues = [kombu.Queue(name, kombu.Exchange(name), name)(channel) for name in (word, f"video.{word}")]
    for one in queues:
        one.declare()
    try:
        for one in queues:
            publish(channel, one, one.name, eta_timestamp=time.time() + 1)
        got = collect(channel, queues, 2)
        assert is_silent(channel.connection.client, 1)
        assert sorted(m.decode() for m in got) == sorted(one.name for one in queues)
    finally:
        for one in queues:
            one.delete()
            channel.exchange_delete(one.name)


def test_message_is_kept_by_its_consumer_where_the_delay_queues_are_off(connect: Connect, queue: Any) -> None:
    channel = connect(native_delayed_delivery=False).channel()
    eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    publish(channel, queue(channel), 1, headers={"eta": eta})
    (message,) = collect(channel, [queue(channel)], 1)
    assert message.headers["eta"] == eta


def test_call_that_waits_for_the_server_is_not_held_up_by_a_message_for_later(
    connect: Connect, queue: Any
) -> None:
    """The delay queues are declared during the wait for the end of the consumer, which has then come and gone."""
    channel = connect().channel()
    eta = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    publish(channel, queue(channel), "later", headers={"eta": eta})
    publish(channel, queue(channel), "now")
    begun = time.monotonic()
    collect(channel, [queue(channel)], 1)
    assert time.monotonic() - begun < 5


def test_program_that_acknowledges_all_up_to_a_message_leaves_those_for_later(
    connect: Connect, queue: Any
) -> None:
    channel = connect().channel()
    eta = (datetime.now(UTC) + timedelta(seconds=7)).isoformat()
    publish(channel, queue(channel), "later", headers={"eta": eta})
    publish(channel, queue(channel), "now")
    (now,) = collect(channel, [queue(channel)], 1, ack=False)
    now.ack(multiple=True)
    channel.flush()
    (later,) = collect(channel, [queue(channel)], 1)
    assert (now.decode(), later.decode()) == ("now", "later")


def test_ladder_has_an_exchange_and_a_queue_for_each_level(connect: Connect, queue: Any) -> None:
    channel = connect().channel()
    publish(channel, queue(channel), 1, eta_timestamp=time.time() + 1)
    for level in range(ladder.LEVELS):
        channel.exchange_declare(ladder.level_name(level), "topic", passive=True)
        channel.queue_declare(ladder.level_name(level), passive=True)
