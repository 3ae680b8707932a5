"""Exchanges: direct, topic, fanout; temporary queues; mailboxes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from .harness import (
    PATIENCE_SECONDS,
    Connect,
    Harness,
    bodies,
    collect,
    drain_until,
    is_silent,
    needs,
    publish,
)
from .untyped import Mailbox, kombu


class RoutingConformance(Harness):
    """Which queue gets what."""

    @pytest.fixture
    def exchange(self, queue: Any, channel: Any) -> Iterator[Any]:
        """A topic exchange."""
        exchange = kombu.Exchange(queue.name + "-topic", type="topic")(channel)
        exchange.declare()
        yield exchange
        exchange.delete()

    def test_default_exchange_routes_by_name(self, channel: Any, queue: Any) -> None:
        kombu.Producer(channel).publish(1, exchange="", routing_key=queue.name)
        assert queue.get(no_ack=True).decode() == 1

    def test_direct_exchange_routes_by_key(self, channel: Any, queue: Any) -> None:
        producer = kombu.Producer(channel)
        producer.publish("no", exchange=queue.exchange, routing_key="other")
        producer.publish("yes", exchange=queue.exchange, routing_key=queue.routing_key)
        assert queue.get(no_ack=True).decode() == "yes"
        assert queue.get() is None

    @needs("shared bindings")
    def test_binding_holds_for_publishers_of_other_connections(
        self, channel: Any, queue: Any, connect: Connect
    ) -> None:
        publish(connect().channel(), queue, 1)
        assert queue.get(no_ack=True).decode() == 1

    @needs("topics")
    @pytest.mark.parametrize(
        ("binding", "key", "matches"),
        [
            ("task.#", "task.sent", True),
            ("task.#", "task.sent.again", True),
            ("#", "worker.online", True),
            ("*.online", "worker.online", True),
            ("*.online", "a.worker.online", False),
            ("task.*", "worker.online", False),
            ("task.sent", "taskXsent", False),
        ],
    )
    def test_topic_exchange_routes_by_pattern(
        self, channel: Any, queue: Any, exchange: Any, binding: str, key: str, matches: bool
    ) -> None:
        bound = kombu.Queue(queue.name + "-bound", exchange, binding)(channel)
        bound.declare()
        kombu.Producer(channel).publish(1, exchange=exchange, routing_key=key)
        message = bound.get(no_ack=True)
        bound.delete()
        assert (message is not None) is matches

    def test_unbound_queue_gets_nothing_more(self, channel: Any, queue: Any) -> None:
        queue.unbind_from(queue.exchange, queue.routing_key)
        publish(channel, queue, 1)
        assert queue.get() is None

    @needs("broadcast")
    def test_fanout_reaches_every_consumer(self, channel: Any, queue: Any, connect: Connect) -> None:
        exchange = kombu.Exchange(queue.name + "-fanout", type="fanout")
        received: list[list[Any]] = [[], [], []]
        connections = [connect() for _ in received]
        for number, (connection, inbox) in enumerate(zip(connections, received, strict=True)):
            own = kombu.Queue(f"{queue.name}-fan-{number}", exchange, auto_delete=True)
            kombu.Consumer(connection.channel(), [own], on_message=inbox.append, no_ack=True).consume()
            assert is_silent(connection)
        for number in range(3):
            kombu.Producer(channel).publish(number, exchange=exchange, routing_key="", declare=[exchange])
        for connection, inbox in zip(connections, received, strict=True):
            drain_until(connection, partial(_has, inbox, 3))
            assert bodies(inbox) == [0, 1, 2]

    @needs("broadcast")
    def test_fanout_does_not_reach_consumers_that_left(
        self, channel: Any, queue: Any, connect: Connect
    ) -> None:
        exchange = kombu.Exchange(queue.name + "-fanout", type="fanout")
        own = kombu.Queue(queue.name + "-fan", exchange, auto_delete=True)
        received: list[Any] = []
        other = connect()
        with kombu.Consumer(other.channel(), [own], on_message=received.append, no_ack=True):
            assert is_silent(other)
        kombu.Producer(channel).publish(1, exchange=exchange, routing_key="", declare=[exchange])
        assert is_silent(other)
        assert received == []

    @needs("broadcast")
    def test_mailbox_answers(self, queue: Any, connect: Connect) -> None:
        server, client = connect(), connect()
        mailbox = Mailbox(queue.name, type="fanout")
        node = mailbox(server).Node("node@host", channel=server.channel(), state={})
        node.handlers["ping"] = lambda state, **_: {"ok": "pong"}
        listener = node.listen()
        done = threading.Event()
        serving = threading.Thread(target=_serve, args=(server, done))
        serving.start()
        try:
            # A limit ends the collection with the first answer.
            options: dict[str, Any] = {"timeout": PATIENCE_SECONDS, "limit": 1}
            replies = mailbox(client).multi_call("ping", **options)
            again = mailbox(client).multi_call("ping", **options)
        finally:
            done.set()
            serving.join()
            listener.cancel()
        assert replies == again == [{"node@host": {"ok": "pong"}}]

    def test_reply_without_a_reader_is_harmless(self, channel: Any, queue: Any) -> None:
        exchange = kombu.Exchange(queue.name + "-reply", durable=False)
        kombu.Producer(channel).publish(1, exchange=exchange, routing_key="nobody", declare=[exchange])
        publish(channel, queue, 2)
        assert bodies(collect(channel, [queue], 1)) == [2]


def _has(inbox: list[Any], count: int) -> bool:
    return len(inbox) == count


def _serve(connection: Any, done: threading.Event) -> None:
    while not done.is_set():
        try:
            connection.drain_events(timeout=0.1)
        except TimeoutError:
            pass
