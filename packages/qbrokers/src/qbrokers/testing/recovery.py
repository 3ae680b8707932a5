"""Nothing is lost: closed connections, killed consumers, long work."""

from __future__ import annotations

import time
from typing import Any

from attrs import evolve

from .harness import Connect, Harness, Target, bodies, collect, drain_until, is_silent, needs, publish, send
from .untyped import kombu

LEASE_SECONDS = 2.0


class RecoveryConformance(Harness):
    """What happens to messages whose consumer goes away."""

    @needs("put back")
    def test_closed_connection_returns_its_messages_at_once(
        self, target: Target, channel: Any, queue: Any, connect: Connect
    ) -> None:
        for number in range(3):
            publish(channel, queue, number)
        other = connect()
        collect(other.channel(), [queue], 2, ack=False)
        other.release()
        messages = collect(channel, [queue], 3)
        assert bodies(messages) == [0, 1, 2]
        if target.counts:
            assert messages[0].headers["x-delivery-count"] == 1

    @needs("put back")
    def test_closed_channel_returns_its_messages_at_once(
        self, channel: Any, queue: Any, connection: Any
    ) -> None:
        publish(channel, queue, 1)
        other = connection.channel()
        collect(other, [queue], 1, ack=False)
        other.close()
        assert bodies(collect(channel, [queue], 1)) == [1]

    def test_acknowledgements_before_the_close_count(
        self, channel: Any, queue: Any, connect: Connect
    ) -> None:
        for number in range(3):
            publish(channel, queue, number)
        other = connect()
        collect(other.channel(), [queue], 3)
        other.release()
        assert queue.get() is None

    @needs("other processes")
    def test_messages_of_a_killed_consumer_come_back(
        self, target: Target, connect: Connect, queue: Any
    ) -> None:
        options = target.lease(LEASE_SECONDS)
        connection = connect(**options)
        channel = connection.channel()
        for number in range(3):
            send(channel, queue, number)
        victim = evolve(target, options=target.options | options).start_victim(queue.name, 3)
        assert victim.stdout is not None
        with victim:
            assert victim.stdout.readline() == b"holding\n"
            victim.kill()
        messages = collect(channel, [queue], 3)
        assert sorted(bodies(messages)) == [0, 1, 2]
        if target.counts:
            assert all(message.delivery_info["redelivered"] for message in messages)
            assert all(message.headers["x-delivery-count"] == 1 for message in messages)

    @needs("other processes", "renewal")
    def test_work_longer_than_the_lease_is_not_given_to_others(
        self, target: Target, queue: Any, connect: Connect
    ) -> None:
        options = target.lease(LEASE_SECONDS / 2)
        victim = evolve(target, options=target.options | options).start_victim(queue.name, 1)
        observer = connect(**options)
        channel = observer.channel()
        send(channel, queue, "long")
        assert victim.stdout is not None
        with victim:
            try:
                assert victim.stdout.readline() == b"holding\n"
                with kombu.Consumer(channel, [queue]):
                    # The victim sleeps all the time: its lease is renewed in the background.
                    assert is_silent(observer, LEASE_SECONDS * 1.5)
            finally:
                victim.kill()

    @needs("renewal")
    def test_program_that_works_long_between_two_drains_keeps_its_message(
        self, target: Target, queue: Any, connect: Connect
    ) -> None:
        options = target.lease(LEASE_SECONDS / 2)
        worker, observer = connect(**options), connect(**options)
        send(observer.channel(), queue, "long")
        own = worker.channel()
        held: list[Any] = []
        consumer = kombu.Consumer(own, [queue], on_message=held.append)
        consumer.consume()
        drain_until(worker, lambda: held)
        with kombu.Consumer(observer.channel(), [queue]):
            assert is_silent(observer, LEASE_SECONDS * 1.5)
        held[0].ack()
        worker.release()
        assert observer.channel().basic_get(queue.name) is None

    def test_published_message_survives_its_publisher(self, queue: Any, connect: Connect) -> None:
        publisher = connect()
        send(publisher.channel(), queue, 1)
        publisher.release()
        assert bodies(collect(connect().channel(), [queue], 1)) == [1]

    def test_connection_can_be_used_again_after_release(self, queue: Any, connect: Connect) -> None:
        connection = connect()
        send(connection.channel(), queue, 1)
        connection.release()
        fresh = connection.clone()
        try:
            assert bodies(collect(fresh.channel(), [queue], 1)) == [1]
        finally:
            fresh.release()

    @needs("put back")
    def test_returning_takes_no_lease(self, queue: Any, connect: Connect) -> None:
        first, second = connect(), connect()
        send(first.channel(), queue, 1)
        collect(first.channel(), [queue], 1, ack=False)
        started = time.monotonic()
        first.release()
        collect(second.channel(), [queue], 1)
        assert time.monotonic() - started < 5
