"""What a consumer of the Redis transport gets, and what the server's books say meanwhile."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from kombu import Consumer, Exchange, Producer, Queue
from redis_support import Broker, drain, until

from qbrokers.batching import BatchChannel, Publication

QUEUE = Queue("jobs", Exchange("jobs"), routing_key="jobs")


def publish(channel: Any, *bodies: object, **options: Any) -> None:
    for body in bodies:
        Producer(channel).publish(body, routing_key="jobs", **options)


def take(connection: Any, count: int, seconds: float = 5, **options: Any) -> list[Any]:
    """Messages that a new consumer gets; not acknowledged."""
    messages: list[Any] = []
    consumer = Consumer(connection.channel(), [QUEUE], on_message=messages.append, **options)
    consumer.consume()
    drain(connection, seconds, lambda: len(messages) >= count)
    consumer.cancel()
    return messages


def test_the_channel_satisfies_the_batch_protocol(broker: Broker) -> None:
    with broker.connect() as connection:
        assert isinstance(connection.channel(), BatchChannel)


def test_a_message_is_on_the_books_until_its_acknowledgement_is_flushed(broker: Broker) -> None:
    with broker.connect() as connection:
        publish(connection.channel(), "a")
        (message,) = take(connection, 1)
        assert broker.held() == 1
        message.ack()
        message.channel.flush()
        assert broker.held() == 0
        assert broker.client.zcard(broker.prefix + "unacked_index") == 0


def test_an_acknowledgement_leaves_although_the_program_does_not_come_back(broker: Broker) -> None:
    with broker.connect() as connection:
        publish(connection.channel(), "a")
        (message,) = take(connection, 1)
        message.ack()
        until(lambda: broker.held() == 0, 3)


def test_no_more_than_the_prefetch_count_is_taken(broker: Broker) -> None:
    with broker.connect() as connection:
        channel = connection.channel()
        publish(channel, *range(10))
        messages: list[Any] = []
        consumer = Consumer(connection.channel(), [QUEUE], on_message=messages.append)
        consumer.qos(prefetch_count=3)
        consumer.consume()
        drain(connection, 0.5)
        assert [m.payload for m in messages] == [0, 1, 2]
        assert broker.client.llen(broker.prefix + "jobs") == 7
        messages[0].ack()
        drain(connection, 2, lambda: len(messages) == 4)
        assert messages[-1].payload == 3


def test_rejected_messages_are_dropped_and_requeued_ones_go_to_the_end(broker: Broker) -> None:
    with broker.connect() as connection:
        publish(connection.channel(), "a", "b")
        first, second = take(connection, 2)
        first.reject()
        second.requeue()
        publish(connection.channel(), "c")
        first.channel.flush()
        publish(connection.channel(), "d")
        again = take(connection, 3)
        assert [m.payload for m in again] == ["c", "b", "d"]
        assert again[1].delivery_info["redelivered"] is True
        assert again[1].headers["redelivered"] is True
        assert [m.headers["x-delivery-count"] for m in again] == [0, 1, 0]


def test_closing_hands_back_to_the_head_in_order(broker: Broker) -> None:
    with broker.connect() as connection:
        publish(connection.channel(), *range(5))
        assert len(take(connection, 5)) == 5
    with broker.connect() as connection:
        publish(connection.channel(), 5)
        assert [m.payload for m in take(connection, 6)] == [0, 1, 2, 3, 4, 5]


def test_released_messages_do_not_count_as_delivered(broker: Broker) -> None:
    with broker.connect() as connection:
        publish(connection.channel(), "a", "b")
        messages = take(connection, 2)
        messages[0].channel.release([m.delivery_tag for m in messages])
        messages[0].channel.flush()
        again = take(connection, 2)
        assert [(m.payload, m.headers["x-delivery-count"]) for m in again] == [("a", 0), ("b", 0)]


def test_a_dead_letter_is_moved_with_its_reason(broker: Broker) -> None:
    with broker.connect() as connection:
        publish(connection.channel(), "bad")
        (message,) = take(connection, 1)
        message.channel.dead_letter(message.delivery_tag, "killed 3 workers")
        message.channel.flush()
        assert broker.held() == 0
        (raw,) = broker.client.lrange(broker.prefix + "jobs.dead", 0, -1)
        assert json.loads(raw)["headers"]["x-dead-letter-reason"] == "killed 3 workers"
        with pytest.raises(KeyError, match="settled already"):
            message.channel.dead_letter(message.delivery_tag, "again")


def test_what_is_no_message_is_put_aside_and_said(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with broker.connect() as connection:
        publish(connection.channel(), "before")
        broker.client.lpush(broker.prefix + "jobs", b"\xff not json", b"[1]", b'{"body": "?"}')
        publish(connection.channel(), "after")
        assert [m.payload for m in take(connection, 2)] == ["before", "after"]
        until(lambda: broker.client.llen(broker.prefix + "jobs.dead") == 3, 3)
        assert b"\xff not json" in broker.client.lrange(broker.prefix + "jobs.dead", 0, -1)
        assert "no message" in caplog.text


def test_a_higher_priority_is_served_first_and_none_is_the_lowest(broker: Broker) -> None:
    with broker.connect() as connection:
        for priority in (0, 1, 5, 9):
            publish(connection.channel(), priority, priority=priority)
        messages = take(connection, 4)
        assert [m.payload for m in messages] == [9, 5, 1, 0]
        assert [m.properties["priority"] for m in messages] == [9, 5, 1, 0]


def test_priorities_of_stock_clients_keep_their_meaning(broker: Broker) -> None:
    with broker.connect() as connection, broker.stock() as stock:
        for priority in (9, 6, 3, 0):
            publish(stock.channel(), f"stock {priority}", priority=priority)
        publish(connection.channel(), "ours 0")
        messages = take(connection, 5)
        assert [m.payload for m in messages] == ["stock 0", "ours 0", "stock 3", "stock 6", "stock 9"]


def test_ten_priorities_of_ours_come_highest_first(broker: Broker) -> None:
    steps = list(range(10))
    with broker.connect(priority_steps=steps) as connection:
        channel = connection.channel()
        for priority in (3, 0, 9, 1, 5, 2, 8, 4, 7, 6):
            publish(channel, priority, priority=priority)
        messages = take(connection, 10)
        assert [m.payload for m in messages] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
        assert [m.properties["priority"] for m in messages] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_stock_consumers_take_our_messages_and_stock_books_come_back(broker: Broker) -> None:
    with broker.connect() as connection:
        publish(connection.channel(), {"x": 1}, priority=5, headers={"task": "t"})
        publish(connection.channel(), {"x": 2})
    with broker.stock() as stock:
        got: list[Any] = []
        with Consumer(stock.channel(), [QUEUE], on_message=got.append):
            drain(stock, 5, lambda: len(got) == 2)
        assert [m.payload for m in got] == [{"x": 2}, {"x": 1}]
        got[0].ack()
        got[1].channel.do_restore = False  # as if it had been killed
    index = broker.prefix + "unacked_index"
    for tag, score in broker.client.zrange(index, 0, -1, withscores=True):
        broker.client.zadd(index, {tag: score - 7200})
    with broker.connect() as connection:
        (message,) = take(connection, 1, 8)
        assert message.payload == {"x": 1}
        assert message.headers["x-delivery-count"] == 1


def test_fair_order_shares_among_queues_and_strict_order_does_not(broker: Broker) -> None:
    queues = [Queue("a"), Queue("b")]
    with broker.connect() as connection:
        for name in ("a", "b"):
            for i in range(20):
                Producer(connection.channel()).publish(f"{name}{i}", routing_key=name)
    for strategy, share in (("round_robin", 5), ("priority", 0)):
        with broker.connect(queue_order_strategy=strategy) as connection:
            got: list[Any] = []
            consumer = Consumer(connection.channel(), queues, on_message=got.append)
            consumer.qos(prefetch_count=10)
            consumer.consume()
            drain(connection, 2, lambda got=got: len(got) == 10)  # type: ignore[misc]
            assert len([m for m in got if m.payload.startswith("b")]) == share


def test_many_are_published_in_one_round_trip_and_in_order(broker: Broker) -> None:
    with broker.connect() as connection:
        channel = connection.channel()
        QUEUE(channel).declare()
        calls = broker.client.info("commandstats")["cmdstat_lpush"]["calls"]
        publications = [
            Publication(
                channel.prepare_message(str(i), content_type="text/plain", content_encoding="utf-8"),
                "",
                "jobs",
            )
            for i in range(500)
        ]
        channel.publish_many(publications)
        assert broker.client.info("commandstats")["cmdstat_lpush"]["calls"] - calls < 100
        assert [m.payload for m in take(connection, 500)] == [str(i) for i in range(500)]


def test_exchanges_route_as_stock_does(broker: Broker) -> None:
    topic = Exchange("news", type="topic")
    with broker.connect() as connection, broker.stock() as stock:
        Queue("usa", topic, routing_key="usa.#")(stock.channel()).declare()
        Queue("weather", topic, routing_key="*.weather")(connection.channel()).declare()
        producer = Producer(connection.channel(), exchange=topic)
        for key in ("usa.news", "usa.weather", "norway.weather"):
            producer.publish(key, routing_key=key)
        lengths = {name: broker.client.llen(broker.prefix + name) for name in ("usa", "weather")}
        assert lengths == {"usa": 2, "weather": 2}


@pytest.mark.parametrize("sender", ["ours", "stock"])
@pytest.mark.parametrize("receiver", ["ours", "stock"])
def test_fanout_reaches_every_listener_with_a_matching_key(
    broker: Broker, sender: str, receiver: str
) -> None:
    exchange = Exchange("events", type="fanout")
    connect = {"ours": broker.connect, "stock": broker.stock}
    with connect[sender]() as out, connect[receiver]() as into:
        got: list[Any] = []
        queue = Queue("listener", exchange, routing_key="worker.#", auto_delete=True)
        with Consumer(into.channel(), [queue], on_message=got.append, no_ack=True):
            drain(into, 0.5)
            producer = Producer(out.channel(), exchange=exchange)
            producer.publish("yes", routing_key="worker.online")
            producer.publish("no", routing_key="task.sent")
            drain(into, 3, lambda: len(got) == 1)
        assert [m.payload for m in got] == ["yes"]


def test_a_waiting_consumer_hears_of_a_stock_push_at_once(broker: Broker) -> None:
    """Idle latency stays within a few milliseconds for each of several queues."""
    with broker.connect() as connection, broker.stock() as stock:
        producer = Producer(stock.channel())
        got: list[float] = []
        names = [f"q{i}" for i in range(4)]
        consumer = Consumer(
            connection.channel(), [Queue(n) for n in names], on_message=lambda m: got.append(time.monotonic())
        )
        consumer.consume()
        drain(connection, 0.3)
        for name in names:
            sent: list[float] = []

            def send(name: str = name, sent: list[float] = sent) -> None:
                sent.append(time.monotonic())
                producer.publish("x", routing_key=name)

            timer = threading.Timer(0.1, send)
            timer.start()
            connection.drain_events(timeout=3)
            timer.join()
            assert got[-1] - sent[0] < 0.05


def test_delayed_messages_come_when_they_are_due(broker: Broker) -> None:
    with broker.connect() as connection:
        channel = connection.channel()
        begun = time.time()
        publish(channel, "late", eta_timestamp=begun + 1.2)
        publish(channel, "soon", eta_timestamp=begun + 0.6)
        publish(channel, "past", eta_timestamp=begun - 5)
        got: list[tuple[str, float]] = []
        with Consumer(channel, [QUEUE], on_message=lambda m: got.append((m.payload, time.time() - begun))):
            drain(connection, 4, lambda: len(got) == 3)
        assert [name for name, _ in got] == ["past", "soon", "late"]
        assert 0.6 <= got[1][1] < 0.7
        assert 1.2 <= got[2][1] < 1.3


def test_an_earlier_delayed_message_is_noticed_while_waiting(broker: Broker) -> None:
    with broker.connect() as connection, broker.connect() as other:
        publish(connection.channel(), "far", eta_timestamp=time.time() + 60)
        got: list[float] = []
        with Consumer(connection.channel(), [QUEUE], on_message=lambda m: got.append(time.time())):
            drain(connection, 0.3)
            due = time.time() + 0.5
            publish(other.channel(), "near", eta_timestamp=due)
            drain(connection, 3, lambda: bool(got))
        assert 0 <= got[0] - due < 0.1


def test_the_eta_of_a_stock_client_sends_its_message_back_to_the_broker(broker: Broker) -> None:
    from datetime import UTC, datetime, timedelta

    with broker.connect(eta_hold_seconds=0.2) as connection, broker.stock() as stock:
        eta = datetime.now(UTC) + timedelta(seconds=1.5)
        publish(stock.channel(), "later", headers={"eta": eta.isoformat()})
        got: list[float] = []
        with Consumer(connection.channel(), [QUEUE], on_message=lambda m: got.append(time.time())):
            drain(connection, 0.5)
            until(lambda: broker.held() == 0, 2)
            assert broker.client.zcard(broker.prefix + "_qbrokers.delayed.jobs") == 1
            drain(connection, 4, lambda: bool(got))
        assert 0 <= got[0] - eta.timestamp() < 0.1


def test_queue_limits_are_kept(broker: Broker) -> None:
    short = Queue("jobs", Exchange("jobs"), routing_key="jobs", max_length=2, expires=60)
    aging = Queue("aging", Exchange("aging"), routing_key="aging", message_ttl=0.2)
    with broker.connect() as connection:
        channel = connection.channel()
        for queue in (short, aging):
            queue(channel).declare()
        publish(channel, 1, 2, 3)
        assert broker.client.llen(broker.prefix + "jobs") == 2
        assert 0 < broker.client.pttl(broker.prefix + "jobs") <= 60_000
        Producer(channel).publish("old", routing_key="aging")
        time.sleep(0.3)  # the message has to age
        Producer(channel).publish("new", routing_key="aging")
        got: list[Any] = []
        with Consumer(channel, [aging], on_message=got.append):
            drain(connection, 3, lambda: bool(got))
        assert [m.payload for m in got] == ["new"]


def test_declaring_a_queue_that_expires_again_restores_its_binding(broker: Broker) -> None:
    reply = Queue("reply", Exchange("reply"), routing_key="reply", expires=10)
    with broker.connect() as connection:
        channel = connection.channel()
        reply(channel).declare()
        broker.client.delete(broker.prefix + "_kombu.binding.reply")  # its life was over
        reply(channel).declare()
        Producer(channel).publish("x", exchange=reply.exchange, routing_key="reply")
        assert channel.basic_get("reply", no_ack=True).payload == "x"


def test_no_key_but_queues_and_permanent_bindings_lives_for_ever(broker: Broker) -> None:
    reply = Queue("reply", Exchange("reply"), routing_key="reply", expires=10, auto_delete=True)
    with broker.connect() as connection:
        reply(connection.channel()).declare()
        Producer(connection.channel()).publish("x", routing_key="reply")
        publish(connection.channel(), "stays")
        take(connection, 1)
    endless = {key for key in broker.names() if broker.client.pttl(broker.prefix + key) == -1}
    assert endless == {"jobs", "_kombu.binding.jobs", "_kombu.binding_permanent.jobs"}


def test_an_idle_consumer_uses_hardly_any_cpu(broker: Broker) -> None:
    with (
        broker.connect() as connection,
        Consumer(connection.channel(), [QUEUE], on_message=lambda m: m.ack()),
    ):
        drain(connection, 0.3)
        used = time.process_time()
        drain(connection, 2)
        assert time.process_time() - used < 0.02 * 2


def test_a_foreign_key_in_the_way_loses_nothing_and_is_named(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    lists = [broker.prefix + "jobs\x06\x169", broker.prefix + "jobs.dead"]
    with broker.connect() as connection:
        got: list[Any] = []
        with Consumer(connection.channel(), [QUEUE], on_message=got.append):
            for name in lists:
                broker.client.set(name, "of another program")
            publish(connection.channel(), "a")
            drain(connection, 0.3)
            assert got == []
            assert broker.client.llen(broker.prefix + "jobs") == 1
            assert "jobs\x06\x169" in caplog.text
            broker.client.delete(lists[0])
            drain(connection, 5, lambda: bool(got))
            got[0].channel.dead_letter(got[0].delivery_tag, "why")
            drain(connection, 0.3)
            assert broker.held() == 1
            broker.client.delete(lists[1])
            until(lambda: broker.held() == 0, 10)
        assert broker.client.llen(broker.prefix + "jobs.dead") == 1
