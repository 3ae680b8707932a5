"""`app.events` takes its options from the settings."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from kombu import Connection

from qevents import EventReceiver, State
from qevents.app import Events


def test_receiver_is_set_up_from_the_settings(app: Any, connection: Connection, exchange: str) -> None:
    receiver = app.events.Receiver(connection, handlers={"*": print})
    assert isinstance(receiver, EventReceiver)
    assert receiver.queue.name.startswith("prefix.")
    assert receiver.exchange.name == exchange
    assert receiver.accept == {"json"}
    assert receiver.clock is app.clock
    assert receiver.handlers == {"*": print}


def test_options_of_the_receiver_win(app: Any, connection: Connection) -> None:
    receiver = app.events.Receiver(connection, routing_key="worker.#", node_id="n", queue_ttl=2.0)
    assert (receiver.queue.name, receiver.queue.message_ttl) == ("prefix.n", 2.0)
    assert app.events.Receiver(connection, queue_ttl=None).queue.message_ttl == 5.0


def test_capture_wakes_the_workers(app: Any, connection: Connection) -> None:
    receiver = app.events.Receiver(connection)
    receiver.wakeup_workers(connection, "channel")
    assert app.broadcasts == [("heartbeat", {"connection": connection, "channel": "channel"})]


def test_dispatcher_is_set_up_from_the_settings(app: Any, connection: Connection, exchange: str) -> None:
    dispatcher = app.events.Dispatcher(connection, groups=["worker"])
    assert dispatcher.exchange.name == exchange
    assert dispatcher.serializer == "json"
    assert dispatcher.groups == {"worker"}
    assert dispatcher.clock is app.clock


def test_default_dispatcher_sends_through_a_pooled_producer(app: Any, connection: Connection) -> None:
    seen: list[str] = []
    receiver = app.events.Receiver(connection, handlers={"*": lambda event: seen.append(event["type"])})

    def send(connection: Any, channel: Any) -> None:
        with app.events.default_dispatcher("q@me") as dispatcher:
            dispatcher.send("worker-x")

    receiver._wakeup = send
    receiver.capture(limit=1, timeout=20)
    assert seen == ["worker-x"]


def test_state_takes_options(app: Any) -> None:
    state = app.events.State(max_tasks_in_memory=5)
    assert isinstance(state, State)
    assert state.max_tasks_in_memory == 5


def test_the_app_finds_it_by_entry_point() -> None:
    (point,) = entry_points(group="qcore.extensions", name="events")
    assert point.load() is Events
