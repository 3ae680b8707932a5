"""In kombu's event loop, as workers use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .harness import PATIENCE_SECONDS, Connect, Harness, needs, publish, taking
from .untyped import Hub, kombu


class LoopConformance(Harness):
    """`register_with_event_loop`."""

    @pytest.fixture
    def hub(self) -> Iterator[Any]:
        """A hub that is closed after the test."""
        hub = Hub()
        yield hub
        hub.close()

    @pytest.fixture
    def worker(self, connect: Connect, hub: Any) -> Any:
        """A connection in the hub."""
        connection = connect()
        connection.connect()
        assert connection.is_evented
        connection.register_with_event_loop(hub)
        return connection

    @needs("event loop")
    def test_messages_arrive_and_acknowledgements_leave(
        self, worker: Any, hub: Any, queue: Any, channel: Any
    ) -> None:
        received: list[Any] = []
        own = worker.channel()
        own.basic_qos(0, 3, False)
        consumer = kombu.Consumer(own, [queue], on_message=taking(received))
        consumer.consume()
        _run(hub, lambda: True)
        for number in range(30):
            publish(channel, queue, number)
        _run(hub, lambda: len(received) == 30)
        assert received == list(range(30))
        _run(hub, lambda: True)
        worker.release()
        assert queue.get() is None

    @needs("event loop")
    def test_waiting_messages_arrive_without_a_new_one(
        self, worker: Any, hub: Any, queue: Any, channel: Any
    ) -> None:
        publish(channel, queue, 1)
        received: list[Any] = []
        kombu.Consumer(worker.channel(), [queue], on_message=received.append, no_ack=True).consume()
        _run(hub, lambda: received)

    @needs("event loop")
    def test_acknowledging_later_lets_the_next_one_in(
        self, worker: Any, hub: Any, queue: Any, channel: Any
    ) -> None:
        held: list[Any] = []
        own = worker.channel()
        own.basic_qos(0, 1, False)
        kombu.Consumer(own, [queue], on_message=held.append).consume()
        publish(channel, queue, 1)
        publish(channel, queue, 2)
        _run(hub, lambda: held)
        hub.call_soon(held[0].ack)
        _run(hub, lambda: len(held) == 2)
        held[1].ack()
        _run(hub, lambda: True)

    @needs("event loop")
    def test_full_consumer_beside_an_idle_one_goes_on_at_once(
        self, worker: Any, hub: Any, queue: Any, channel: Any
    ) -> None:
        held: list[Any] = []
        done = 0
        idle = kombu.Queue(queue.name + "-idle", kombu.Exchange(queue.name + "-idle"), auto_delete=True)
        kombu.Consumer(worker.channel(), [idle], on_message=held.append, no_ack=True).consume()
        own = worker.channel()
        own.basic_qos(0, 1, False)
        kombu.Consumer(own, [queue], on_message=held.append).consume()
        for number in range(20):
            publish(channel, queue, number)
        _run(hub, lambda: held)
        started = time.monotonic()
        while done < 20:
            if held:
                # The loop turns while the message is in work, and the idle queue is looked at.
                hub.run_once()
                held.pop().ack()
                done += 1
            hub.run_once()
            assert time.monotonic() - started < PATIENCE_SECONDS

    @needs("event loop")
    def test_message_after_the_close_is_for_others(
        self, worker: Any, hub: Any, queue: Any, channel: Any
    ) -> None:
        received: list[Any] = []
        kombu.Consumer(worker.channel(), [queue], on_message=received.append).consume()
        _run(hub, lambda: True)
        worker.release()
        publish(channel, queue, 1)
        # Where the consumer's question is still with the broker, the answer gives the message back.
        _run(hub, lambda: queue.get(no_ack=True))
        assert received == []

    @needs("event loop", "delays")
    def test_delayed_message_arrives_in_time(self, worker: Any, hub: Any, queue: Any, channel: Any) -> None:
        received: list[Any] = []
        kombu.Consumer(worker.channel(), [queue], on_message=received.append, no_ack=True).consume()
        _run(hub, lambda: True)
        publish(channel, queue, 1, eta_timestamp=time.time() + 0.6)
        _run(hub, lambda: received, seconds=5)

    @needs("event loop", "broadcast")
    def test_two_connections_share_the_loop(
        self, worker: Any, hub: Any, queue: Any, channel: Any, connect: Connect
    ) -> None:
        other = connect()
        other.connect()
        other.register_with_event_loop(hub)
        exchange = kombu.Exchange(queue.name + "-fanout", type="fanout")
        received: list[Any] = []
        for number, connection in enumerate((worker, other)):
            own = kombu.Queue(f"{queue.name}-{number}", exchange, auto_delete=True)
            kombu.Consumer(connection.channel(), [own], on_message=received.append, no_ack=True).consume()
        _run(hub, lambda: True)
        kombu.Producer(channel).publish(1, exchange=exchange, routing_key="", declare=[exchange])
        _run(hub, lambda: len(received) == 2)


def _run(hub: Any, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Turn the loop, at least a few times, until `condition()` holds."""
    deadline = time.monotonic() + seconds
    hub.timer.call_repeatedly(0.05, lambda: None)
    for _ in range(5):
        hub.run_once()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        hub.run_once()
