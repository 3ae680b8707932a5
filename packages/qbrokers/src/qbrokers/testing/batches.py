"""The batch protocol, delayed delivery, expiration: `qbrokers.batching`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from qbrokers.batching import BatchChannel, Publication

from .harness import Connect, Harness, bodies, collect, drain_until, is_silent, needs, publish
from .untyped import kombu


class BatchConformance(Harness):
    """Many messages at once, messages for later."""

    @needs("batches")
    def test_channel_has_the_protocol(self, channel: Any) -> None:
        assert isinstance(channel, BatchChannel)
        assert channel.supports_delay

    @needs("batches")
    def test_publish_many_keeps_the_order(self, channel: Any, queue: Any) -> None:
        channel.publish_many([_publication(channel, queue, str(number)) for number in range(20)])
        assert bodies(collect(channel, [queue], 20, accept=["text/plain"])) == [str(n) for n in range(20)]

    @needs("batches")
    def test_publish_many_reaches_several_exchanges(self, channel: Any, queue: Any) -> None:
        by_name = Publication(_message(channel, "b"), "", queue.name)
        channel.publish_many([_publication(channel, queue, "a"), by_name])
        assert bodies(collect(channel, [queue], 2, accept=["text/plain"])) == ["a", "b"]

    @needs("batches")
    def test_publish_many_of_nothing(self, channel: Any, queue: Any) -> None:
        channel.publish_many([])
        assert queue.get() is None

    @needs("batches", "priority")
    def test_publish_many_takes_priorities(self, channel: Any, queue: Any) -> None:
        channel.publish_many([_publication(channel, queue, str(p), priority=p) for p in (0, 9)])
        channel.basic_qos(0, 1, False)
        assert bodies(collect(channel, [queue], 2, accept=["text/plain"])) == ["9", "0"]

    @needs("batches")
    def test_flush_writes_acknowledgements(self, channel: Any, queue: Any, connect: Connect) -> None:
        for number in range(3):
            publish(channel, queue, number)
        held: list[Any] = []
        consumer = kombu.Consumer(channel, [queue], on_message=held.append)
        with consumer:
            drain_until(channel.connection.client, lambda: len(held) == 3)
            for message in held:
                message.ack()
            channel.flush()
        channel.basic_recover(requeue=True)
        assert connect().channel().basic_get(queue.name) is None

    @needs("batches", "release")
    def test_released_message_was_not_delivered(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        (message,) = collect(channel, [queue], 1, ack=False)
        channel.release([message.delivery_tag])
        channel.flush()
        (again,) = collect(channel, [queue], 1)
        assert again.headers["x-delivery-count"] == 0

    @needs("batches")
    def test_dead_letter_is_kept_with_its_reason(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, {"n": 1}, headers={"id": "1"})
        (message,) = collect(channel, [queue], 1, ack=False)
        channel.dead_letter(message.delivery_tag, "it kills workers")
        channel.flush()
        assert queue.get() is None
        dead = kombu.Queue(f"{queue.name}.dead")(channel).get(no_ack=True)
        channel.queue_delete(f"{queue.name}.dead")
        assert dead.decode() == {"n": 1}
        assert dead.headers["x-dead-letter-reason"] == "it kills workers"
        assert dead.headers["id"] == "1"

    @needs("batches")
    def test_dead_letter_takes_further_headers(self, channel: Any, queue: Any) -> None:
        if not hasattr(channel, "requeue"):
            pytest.skip("the transport puts aside with a reason only")
        publish(channel, queue, 1, headers={"id": "1", "old": "x"})
        (message,) = collect(channel, [queue], 1, ack=False)
        channel.dead_letter(message.delivery_tag, "why", {"x-dead-letter-deliveries": 5, "old": None})
        channel.flush()
        dead = kombu.Queue(f"{queue.name}.dead")(channel).get(no_ack=True)
        channel.queue_delete(f"{queue.name}.dead")
        assert dead.headers["x-dead-letter-deliveries"] == 5
        assert "old" not in dead.headers

    @needs("batches")
    def test_requeued_message_comes_again_with_its_new_headers(self, channel: Any, queue: Any) -> None:
        if not hasattr(channel, "requeue"):
            pytest.skip("the transport cannot change the headers of a held message")
        publish(channel, queue, "first", headers={"id": "1"})
        publish(channel, queue, "second")
        (message,) = collect(channel, [queue], 1, ack=False)
        channel.requeue(message.delivery_tag, {"x-lost-deliveries": 1})
        channel.flush()
        again = collect(channel, [queue], 2)
        assert bodies(again) == ["second", "first"]
        assert again[1].headers["x-lost-deliveries"] == 1
        assert again[1].headers["x-delivery-count"] == 0
        with pytest.raises(KeyError):
            channel.requeue(message.delivery_tag, {})

    @needs("batches")
    def test_message_that_is_not_held_cannot_be_put_aside(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1)
        (message,) = collect(channel, [queue], 1)
        with pytest.raises(KeyError):
            channel.dead_letter(message.delivery_tag, "too late")

    @needs("delays")
    def test_due_message_arrives_and_not_before(self, channel: Any, queue: Any, connection: Any) -> None:
        due = time.time() + 0.7
        publish(channel, queue, "later", eta_timestamp=due)
        publish(channel, queue, "now")
        got: list[tuple[Any, float]] = []
        with kombu.Consumer(
            channel, [queue], on_message=lambda m: got.append((m.decode(), time.time())), no_ack=True
        ):
            drain_until(connection, lambda: len(got) == 2)
        assert [body for body, _ in got] == ["now", "later"]
        assert due <= got[1][1] < due + 2

    @needs("delays")
    def test_message_for_the_far_future_stays(self, channel: Any, queue: Any, connection: Any) -> None:
        publish(channel, queue, 1, eta_timestamp=time.time() + 3600)
        with kombu.Consumer(channel, [queue]):
            assert is_silent(connection)
        queue.purge()

    @needs("delays", "purge delayed")
    def test_purge_takes_messages_for_later(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1, eta_timestamp=time.time() + 3600)
        assert queue.purge() == 1

    @needs("delays")
    def test_eta_header_of_a_celery_client_is_understood(
        self, channel: Any, queue: Any, connection: Any
    ) -> None:
        eta = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()
        publish(channel, queue, 1, headers={"task": "t", "id": "1", "eta": eta})
        with kombu.Consumer(channel, [queue]):
            assert is_silent(connection)
        queue.purge()

    def test_message_that_is_due_already_arrives(self, channel: Any, queue: Any) -> None:
        publish(channel, queue, 1, eta_timestamp=time.time() - 10)
        assert bodies(collect(channel, [queue], 1)) == [1]


def _message(channel: Any, text: str, priority: int = 0) -> dict[str, Any]:
    message: dict[str, Any] = channel.prepare_message(
        text,
        priority=priority,
        content_type="text/plain",
        content_encoding="utf-8",
        headers={},
        properties={"delivery_mode": 2},
    )
    return message


def _publication(channel: Any, queue: Any, text: str, priority: int = 0) -> Publication:
    return Publication(_message(channel, text, priority), queue.exchange.name, queue.routing_key)
