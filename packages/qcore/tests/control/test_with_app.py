"""Remote control of a real app."""

from __future__ import annotations

import threading
import uuid

from kombu import Connection

from qcore import App


def make_app() -> App:
    return App(
        f"control-{uuid.uuid4()}",
        broker="memory://",
        set_as_current=False,
        task_default_queue=f"q-{uuid.uuid4()}",
        control_exchange=f"c-{uuid.uuid4()}",
        broker_transport_options={"polling_interval": 0.01},
    )


def test_purge_deletes_waiting_tasks() -> None:
    app = make_app()
    for _ in range(3):
        app.send_task("tasks.any")
    assert app.control.purge() == 3
    assert app.control.purge() == 0
    app.close()


def test_a_node_of_the_app_answers() -> None:
    app = make_app()
    stop = threading.Event()
    ready = threading.Event()

    def serve() -> None:
        with app.connection_for_read() as connection:
            node = app.control.mailbox(connection).Node(
                "q@here", handlers={"ping": lambda state: {"ok": "pong"}}, channel=connection.channel()
            )
            node.listen()
            ready.set()
            drain_until(connection, stop)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(20)
        assert app.control.inspect("q@here", timeout=20).ping() == {"q@here": {"ok": "pong"}}
    finally:
        stop.set()
        thread.join()
        app.close()


def drain_until(connection: Connection, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            connection.drain_events(timeout=0.05)
        except TimeoutError:
            pass
