"""What the transports of kombu cannot do is refused by worker and client, and no work is lost by it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from qbrokers.testing.untyped import kombu
from qcore import App, chain
from qcore.errors import UnsupportedByBroker
from qcore.queues import Broadcast
from qcore.refusal import following
from qworker.testing import EmbeddedWorkerError, start_worker

# kombu's SQL models use a deprecated loader.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

Make = Callable[..., App]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    apps: list[App] = []

    def make(url: str = "sqla+sqlite:///{path}/broker.db", **settings: Any) -> App:
        app = App(
            "stock",
            broker=url.format(path=tmp_path),
            backend="cache+memory://",
            set_as_current=False,
            task_default_queue=f"stock-{uuid4().hex[:12]}",
            **settings,
        )
        app.task(lambda x, y: x + y, name="stock.add")
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


def refused(app: App, **options: Any) -> UnsupportedByBroker:
    """The error with which a worker of `app` ends at its start."""
    with pytest.raises(EmbeddedWorkerError) as caught, start_worker(app, **options):
        pass
    assert isinstance(caught.value.__cause__, UnsupportedByBroker)
    return caught.value.__cause__


def test_a_worker_does_not_start_for_broadcasts_that_nobody_would_get(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(task_queues=[Broadcast("everyone")])

    error = refused(app)

    assert "has no fanout exchanges" in str(error)
    assert f"The worker stops: {error}" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_worker_does_not_start_for_priorities_that_nobody_would_heed(make: Make) -> None:
    app = make(task_queue_max_priority=10, task_queues=[kombu.Queue("a")])

    assert "'a' is declared with x-max-priority=10" in str(refused(app))


def test_queues_that_a_worker_does_not_consume_from_do_not_matter(make: Make) -> None:
    app = make(task_queues=[kombu.Queue("a"), Broadcast("everyone")])

    with start_worker(app, queues=["a"]):
        assert app.send_task("stock.add", (1, 2), queue="a").get(timeout=30) == 3


def test_messages_with_a_priority_are_run_and_so_is_what_follows(make: Make) -> None:
    app = make(task_inherit_parent_priority=True)
    add = app.tasks["stock.add"]

    with start_worker(app):
        with following():  # as Celery's clients send it
            result = chain(add.s(1, 2).set(priority=5), add.s(4).set(priority=5), app=app).apply_async()
        assert result.get(timeout=30) == 7


def test_events_that_were_asked_for_are_said_to_be_off(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with start_worker(make(), task_events=True) as worker:
        assert not worker.consumer.event_dispatcher.enabled

    off = [record for record in caplog.records if "Events are off: the broker" in record.getMessage()]
    assert [record.levelno for record in off] == [logging.WARNING]


def test_heartbeats_that_nobody_asked_for_are_off_with_a_plain_line(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), start_worker(make(), without_heartbeat=False) as worker:
        assert not worker.consumer.event_dispatcher.enabled

    off = [record for record in caplog.records if "Events are off: the broker" in record.getMessage()]
    assert [record.levelno for record in off] == [logging.INFO]


def test_a_receiver_of_events_is_refused(make: Make) -> None:
    app = make()

    with (
        app.connection_for_read() as connection,
        pytest.raises(UnsupportedByBroker, match="cannot broadcast, which reading events needs"),
    ):
        app.events.Receiver(connection)


def test_a_queue_added_at_run_time_is_refused_and_the_worker_goes_on(make: Make) -> None:
    app = make("memory://")

    with start_worker(app) as worker:
        replies = app.control.add_consumer("picky", exchange_type="headers", reply=True, timeout=10, limit=1)
        assert replies is not None
        (reply,) = replies
        assert "has no headers exchanges" in reply[worker.hostname]["error"]
        assert "picky" not in app.amqp.queues.consume_from
        assert app.tasks["stock.add"].delay(1, 2).get(timeout=30) == 3
