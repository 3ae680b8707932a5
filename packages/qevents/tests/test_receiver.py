"""The receiver on a real in-memory broker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection

from qcore.errors import ImproperlyConfigured
from qcore.events import EventDispatcher
from qcore.times import utc_offset_hours
from qevents import EventReceiver

Make = Callable[..., EventReceiver]


def capture_one_message(receiver: EventReceiver, send: Callable[[], object]) -> None:
    """Consume until the message arrived that is sent once the queue exists."""
    receiver._wakeup = lambda connection, channel: send()
    receiver.capture(limit=1, timeout=20)


@pytest.fixture
def dispatcher(connection: Connection, exchange: str) -> EventDispatcher:
    return EventDispatcher(connection, "q@here", exchange=exchange, buffer_group=["task"])


def test_single_event_reaches_its_handler(make_receiver: Make, dispatcher: EventDispatcher) -> None:
    seen: list[dict[str, Any]] = []
    before = time.time()
    capture_one_message(
        make_receiver({"worker-online": seen.append}), lambda: dispatcher.send("worker-online", freq=2.0)
    )
    (event,) = seen
    assert (event["type"], event["hostname"], event["freq"]) == ("worker-online", "q@here", 2.0)
    assert before <= event["local_received"] <= time.time()


def test_an_array_of_events_is_taken_apart(make_receiver: Make, dispatcher: EventDispatcher) -> None:
    seen: list[str] = []

    def send() -> None:
        for uuid in "abc":
            dispatcher.send("task-started", uuid=uuid)
        dispatcher.flush()

    capture_one_message(make_receiver({"*": lambda event: seen.append(event["uuid"])}), send)
    assert seen == ["a", "b", "c"]


def test_star_gets_what_has_no_handler(make_receiver: Make) -> None:
    seen: list[tuple[str, str]] = []
    receiver = make_receiver(
        {"task-a": lambda e: seen.append(("a", e["type"])), "*": lambda e: seen.append(("*", e["type"]))}
    )
    for name in ("task-a", "task-b"):
        receiver.receive({"type": name})
    make_receiver({"task-a": lambda e: seen.append(("x", ""))}).receive({"type": "task-b"})
    assert seen == [("a", "task-a"), ("*", "task-b")]


def test_routing_key_selects(make_receiver: Make, dispatcher: EventDispatcher) -> None:
    seen: list[str] = []

    def send() -> None:
        dispatcher.send("task-started")
        dispatcher.flush()
        dispatcher.send("worker-online")

    capture_one_message(
        make_receiver({"*": lambda event: seen.append(event["type"])}, routing_key="worker.#"), send
    )
    assert seen == ["worker-online"]


def test_a_channel_serves_as_well_as_a_connection(connection: Connection, exchange: str) -> None:
    receiver = EventReceiver(connection.channel(), exchange=exchange)
    assert receiver.connection is connection


def test_queue_of_the_receiver(make_receiver: Make, exchange: str) -> None:
    receiver = make_receiver(node_id="me", queue_prefix="pre", routing_key="worker.#")
    queue = receiver.queue
    assert (queue.name, queue.routing_key, queue.exchange.name) == ("pre.me", "worker.#", exchange)
    assert (queue.auto_delete, queue.durable, queue.exclusive) == (True, False, True)
    assert (queue.message_ttl, queue.expires) == (5.0, 60.0)
    durable = make_receiver(queue_durable=True, queue_exclusive=False).queue
    assert (durable.auto_delete, durable.durable, durable.exclusive) == (False, True, False)


def test_durable_and_exclusive_contradict(make_receiver: Make) -> None:
    with pytest.raises(ImproperlyConfigured, match="event_queue_exclusive"):
        make_receiver(queue_durable=True)


def test_limit_counts_messages(make_receiver: Make, dispatcher: EventDispatcher) -> None:
    seen: list[int] = []

    def send() -> None:
        for number in range(5):
            dispatcher.send("worker-x", n=number)

    receiver = make_receiver({"*": lambda event: seen.append(event["n"])})
    receiver._wakeup = lambda connection, channel: send()
    receiver.capture(limit=3, timeout=20)
    assert seen == [0, 1, 2]


def test_itercapture_yields_after_each_message(make_receiver: Make, dispatcher: EventDispatcher) -> None:
    seen: list[int] = []

    def send() -> None:
        for number in range(2):
            dispatcher.send("worker-x", n=number)

    receiver = make_receiver({"*": lambda event: seen.append(event["n"])})
    receiver._wakeup = lambda connection, channel: send()
    steps = receiver.itercapture(timeout=20)
    next(steps)
    assert seen == [0]
    next(steps)
    assert seen == [0, 1]
    steps.close()


def test_silence_times_out(make_receiver: Make) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no event for 0\.1 seconds"):
        make_receiver().capture(timeout=0.1)
    assert time.monotonic() - started < 10


def test_should_stop_ends_the_capture(make_receiver: Make) -> None:
    receiver, ready = make_receiver(), threading.Event()
    receiver._wakeup = lambda connection, channel: ready.set()
    thread = threading.Thread(target=receiver.capture)
    thread.start()
    assert ready.wait(20)
    receiver.should_stop = True
    thread.join(20)
    assert not thread.is_alive()


def test_wakeup_can_be_left_out(make_receiver: Make) -> None:
    calls: list[int] = []
    receiver = make_receiver(wakeup=lambda connection, channel: calls.append(1))
    with pytest.raises(TimeoutError):
        receiver.capture(timeout=0.05, wakeup=False)
    assert calls == []


def test_an_error_of_a_handler_is_not_taken_for_a_lost_broker(
    make_receiver: Make, dispatcher: EventDispatcher
) -> None:
    def fail(event: dict[str, Any]) -> None:
        raise ConnectionResetError("my own data base")

    with pytest.raises(ConnectionResetError, match="my own"):
        capture_one_message(make_receiver({"*": fail}), lambda: dispatcher.send("worker-online"))


def test_what_is_no_event_is_logged_and_dropped(
    make_receiver: Make, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    receiver = make_receiver({"*": lambda event: seen.append(event["type"])})
    with caplog.at_level(logging.WARNING):
        receiver.receive(["text", {"no": "type"}, {"type": 3}, {"type": "worker-x"}])
        receiver.receive(None)
    assert seen == ["worker-x"]
    assert caplog.text.count("is no event") == 4


def test_undecodable_messages_are_dropped(
    make_receiver: Make, connection: Connection, exchange: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def send() -> None:
        with connection.Producer() as producer:
            producer.publish(
                b"{",
                exchange=exchange,
                routing_key="worker.x",
                content_type="application/json",
                content_encoding="utf-8",
            )
        EventDispatcher(connection, exchange=exchange).send("worker-x")

    capture_one_message(make_receiver({"*": lambda event: seen.append(event["type"])}), send)
    assert seen == ["worker-x"]
    assert "cannot be decoded" in caplog.text


# -- clock and time


def test_events_advance_the_clock(make_receiver: Make) -> None:
    receiver = make_receiver()
    receiver.event_from_message({"type": "worker-x", "clock": 41})
    assert receiver.clock.value == 42


@pytest.mark.parametrize("event", [{"type": "worker-x"}, {"type": "worker-x", "clock": None}])
def test_an_event_without_clock_gets_ours(make_receiver: Make, event: dict[str, Any]) -> None:
    receiver = make_receiver()
    receiver.event_from_message({"type": "worker-x", "clock": 41})
    _, completed = receiver.event_from_message(event)
    assert completed["clock"] == 43


def test_the_clock_of_a_client_is_replaced(make_receiver: Make) -> None:
    receiver = make_receiver()
    receiver.event_from_message({"type": "worker-x", "clock": 41})
    _, event = receiver.event_from_message({"type": "task-sent", "clock": 7_000})
    assert event["clock"] == 41
    assert receiver.clock.value == 42


def test_timestamps_are_moved_to_our_zone(make_receiver: Make) -> None:
    here = utc_offset_hours()
    _, event = make_receiver().event_from_message(
        {"type": "worker-x", "timestamp": 10_000.0, "utcoffset": here + 1}
    )
    assert event["timestamp"] == 10_000.0 - 3600
    _, same = make_receiver().event_from_message(
        {"type": "worker-x", "timestamp": 10_000.0, "utcoffset": here + 1}, localize=False
    )
    assert same["timestamp"] == 10_000.0


def test_an_unreachable_broker_is_tried_again(
    make_receiver: Make, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    receiver = make_receiver({"*": lambda event: seen.append(event["type"])})
    tries = []

    def lose_it_once(connection: Any, channel: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise connection.connection_errors[0]("gone")
        dispatcher.send("worker-online")

    receiver._wakeup = lose_it_once
    receiver.capture(limit=1, timeout=20)
    assert seen == ["worker-online"]
    assert "connecting again" in caplog.text
