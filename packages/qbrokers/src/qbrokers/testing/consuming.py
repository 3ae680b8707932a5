"""Publishing, receiving, acknowledging, priorities, prefetch."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from kombu.exceptions import ChannelError

from .harness import Connect, Harness, bodies, collect, drain_until, is_silent, needs, publish, taking
from .untyped import kombu


class ConsumingConformance(Harness):
    """One consumer, one queue."""

    def test_message_arrives_as_it_was_sent(self, channel: Any, queue: Any) -> None:
        headers = {"id": "1", "nested": {"list": [1, None, "ü"]}, "flag": True}
        publish(channel, queue, {"x": "é"}, headers=headers, correlation_id="c", reply_to="r")
        (message,) = collect(channel, [queue], 1)
        assert message.decode() == {"x": "é"}
        assert headers.items() <= message.headers.items()
        assert message.content_type == "application/json"
        assert (message.properties["correlation_id"], message.properties["reply_to"]) == ("c", "r")
        assert message.delivery_info["exchange"] == queue.exchange.name
        assert message.delivery_info["routing_key"] == queue.routing_key

    @needs("large bodies")
    def test_body_of_a_megabyte_arrives(self, channel: Any, queue: Any) -> None:
        body = bytes(range(256)) * 4096
        publish(channel, queue, body, content_type="application/octet-stream", content_encoding="binary")
        (message,) = collect(channel, [queue], 1, accept=["application/octet-stream"])
        assert bytes(message.body) == body

    def test_compressed_body_arrives(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, {"x": "y" * 1000}, compression="zlib")
        assert bodies(collect(channel, [queue], 1)) == [{"x": "y" * 1000}]

    @needs("count header")
    def test_first_delivery_is_not_redelivered(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        (message,) = collect(channel, [queue], 1)
        assert not message.delivery_info["redelivered"]
        assert message.headers["x-delivery-count"] == 0

    def test_order_within_a_priority_is_kept(self, channel: Any, queue: Any) -> None:
        for number in range(50):
            publish(channel, queue, number)
        assert bodies(collect(channel, [queue], 50)) == list(range(50))

    @needs("priority")
    def test_highest_priority_comes_first(self, channel: Any, queue: Any) -> None:
        for priority in (0, 9, 3, 6):
            publish(channel, queue, priority, priority=priority)
        channel.basic_qos(0, 1, False)
        assert bodies(collect(channel, [queue], 4)) == [9, 6, 3, 0]

    def test_acknowledged_message_is_gone(self, channel: Any, queue: Any, connect: Connect) -> None:
        publish(channel, queue, 1)
        collect(channel, [queue], 1)
        channel.close()
        again = queue(connect().channel())
        assert again.queue_declare().message_count == 0
        again.delete()

    def test_rejected_message_is_gone(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        (message,) = collect(channel, [queue], 1, ack=False)
        message.reject()
        channel.basic_recover(requeue=True)
        assert queue.get() is None

    @needs("count header")
    def test_requeued_message_comes_again_and_is_counted(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, "a")
        (first,) = collect(channel, [queue], 1, ack=False)
        first.requeue()
        publish(channel, queue, "b")
        messages = {message.decode(): message for message in collect(channel, [queue], 2)}
        assert messages["a"].delivery_info["redelivered"]
        assert messages["a"].headers["x-delivery-count"] == 1
        assert messages["b"].headers["x-delivery-count"] == 0

    @needs("count header", "delivery count")
    def test_delivery_count_grows_with_each_return(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        counts = []
        for _ in range(3):
            (message,) = collect(channel, [queue], 1, ack=False)
            counts.append(message.headers["x-delivery-count"])
            message.requeue()
        assert counts == [0, 1, 2]

    @needs("recover")
    def test_recover_returns_everything_unacknowledged(self, channel: Any, queue: Any) -> None:
        for number in range(3):
            publish(channel, queue, number)
        collect(channel, [queue], 3, ack=False)
        channel.basic_recover(requeue=True)
        assert bodies(collect(channel, [queue], 3)) == [0, 1, 2]

    @needs("multiple", "recover")
    def test_multiple_acknowledges_all_up_to_the_message(self, channel: Any, queue: Any) -> None:
        for number in range(3):
            publish(channel, queue, number)
        messages = collect(channel, [queue], 3, ack=False)
        messages[1].ack(multiple=True)
        channel.basic_recover(requeue=True)
        assert bodies(collect(channel, [queue], 1)) == [2]
        assert queue.get() is None

    def test_prefetch_limits_what_is_unacknowledged(self, channel: Any, queue: Any, connection: Any) -> None:
        for number in range(5):
            publish(channel, queue, number)
        channel.basic_qos(0, 2, False)
        held: list[Any] = []
        with kombu.Consumer(channel, [queue], on_message=held.append):
            drain_until(connection, lambda: len(held) == 2)
            assert is_silent(connection)
            held[0].ack()
            drain_until(connection, lambda: len(held) == 3)
            assert is_silent(connection)

    @needs("prefetch change")
    def test_changed_prefetch_applies_at_once(self, channel: Any, queue: Any, connection: Any) -> None:
        for number in range(5):
            publish(channel, queue, number)
        channel.basic_qos(0, 2, False)
        held: list[Any] = []
        with kombu.Consumer(channel, [queue], on_message=held.append):
            drain_until(connection, lambda: len(held) == 2)
            channel.basic_qos(0, 4, False)
            drain_until(connection, lambda: len(held) == 4)

    def test_no_ack_consumer_needs_no_acknowledgement(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        collect(channel, [queue], 1, ack=False, no_ack=True)
        channel.basic_recover(requeue=True)
        assert queue.get() is None

    def test_message_for_a_waiting_consumer_of_another_connection(
        self, channel: Any, queue: Any, connect: Connect
    ) -> None:
        other = connect()
        received: list[Any] = []
        with kombu.Consumer(other.channel(), [queue], on_message=received.append, no_ack=True):
            assert is_silent(other)
            publish(channel, queue, 1)
            drain_until(other, lambda: received)

    def test_two_consumers_share_a_queue(self, channel: Any, queue: Any, connect: Connect) -> None:
        connections = [connect(), connect()]
        received: list[Any] = []
        for connection in connections:
            own = connection.channel()
            own.basic_qos(0, 5, False)
            kombu.Consumer(own, [queue], on_message=taking(received)).consume()
        for number in range(100):
            publish(channel, queue, number)
        for connection in connections * 100:
            try:
                connection.drain_events(timeout=0.2 if len(received) < 100 else 0)
            except TimeoutError:
                pass
        assert sorted(received) == list(range(100))

    def test_several_queues_are_all_served(self, channel: Any, queue: Any) -> None:
        names = [f"{queue.name}-{number}" for number in range(3)]
        queues = [kombu.Queue(name, kombu.Exchange(name), name)(channel) for name in names]
        for one in queues:
            one.declare()
            for number in range(4):
                publish(channel, one, [one.name, number])
        got = bodies(collect(channel, queues, 12))
        for name in names:
            assert [number for from_, number in got if from_ == name] == [0, 1, 2, 3]
        for one in queues:
            one.delete()

    def test_cancelled_consumer_gets_nothing_more(self, channel: Any, queue: Any, connection: Any) -> None:
        received: list[Any] = []
        with kombu.Consumer(channel, [queue], on_message=received.append):
            assert is_silent(connection)
        publish(channel, queue, 1)
        assert is_silent(connection)
        message = queue.get()
        assert (message.decode(), received) == (1, [])
        message.ack()

    def test_get_takes_one_message(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        publish(channel, queue, 2)
        message = queue.get()
        assert message.decode() == 1
        message.ack()
        assert queue.get(no_ack=True).decode() == 2
        assert queue.get() is None

    def test_count_is_of_waiting_messages(self, channel: Any, queue: Any) -> None:
        for number in range(3):
            publish(channel, queue, number)
        assert channel.queue_declare(queue.name, passive=True).message_count == 3

    def test_purge_drops_what_waits_and_counts_it(self, channel: Any, queue: Any) -> None:
        for number in range(3):
            publish(channel, queue, number)
        assert queue.purge() == 3
        assert queue.get() is None
        assert queue.purge() == 0

    def test_deleted_queue_loses_its_messages(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        queue.delete()
        queue.declare()
        assert queue.get() is None

    @needs("delete if empty")
    def test_queue_that_is_not_empty_can_be_protected(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        with contextlib.suppress(ChannelError):
            queue.delete(if_empty=True)
        assert queue.get(no_ack=True).decode() == 1

    @needs("unknown queue")
    def test_unknown_queue(self, channel: Any, queue: Any) -> None:
        name = queue.name + "-unknown"
        with pytest.raises(ChannelError):
            channel.queue_declare(name, passive=True)
        assert channel.basic_get(name) is None
        assert not channel.queue_purge(name)
        channel.queue_delete(name)

    @needs("unknown queue")
    def test_message_to_a_queue_that_is_not_declared_yet_is_kept(self, channel: Any, queue: Any) -> None:
        name = queue.name + "-later"
        kombu.Producer(channel).publish(1, exchange="", routing_key=name)
        later = kombu.Queue(name, kombu.Exchange(name), name)(channel)
        later.declare()
        assert later.get(no_ack=True).decode() == 1
        later.delete()

    def test_simple_queue(self, connection: Any, queue: Any) -> None:
        name = queue.name + "-simple"
        with connection.SimpleQueue(name) as simple:
            simple.put({"n": 1})
            message = simple.get(timeout=5)
            assert message.payload == {"n": 1}
            message.ack()
            with pytest.raises(simple.Empty):
                simple.get_nowait()
        connection.default_channel.queue_delete(name)

    def test_drain_events_times_out(self, connection: Any, queue: Any) -> None:
        with kombu.Consumer(connection.channel(), [queue]), pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.05)
