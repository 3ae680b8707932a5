"""Tasks through transports of kombu: memory, files, SQL, SQS."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from qcore import App
from qworker.testing import start_worker

# kombu's SQL models use a deprecated loader, and its HTTP client for SQS deprecated calls.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning",
    "ignore:(socket_all|IOCTLFUNCTION) is deprecated:DeprecationWarning",
)


@pytest.fixture(params=["memory", "filesystem", "sqlalchemy", "sqs"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    options: dict[str, Any] = {"polling_interval": 0.02}
    url = "memory://"
    if request.param == "filesystem":
        url = "filesystem://"
        for name in ("messages", "processed", "control"):
            (tmp_path / name).mkdir()
        options |= {
            "data_folder_in": str(tmp_path / "messages"),
            "data_folder_out": str(tmp_path / "messages"),
            "processed_folder": str(tmp_path / "processed"),
            "control_folder": str(tmp_path / "control"),
        }
    elif request.param == "sqlalchemy":
        url, options = f"sqla+sqlite:///{tmp_path}/broker.db", {}
    elif request.param == "sqs":
        url = request.getfixturevalue("sqs_url")
        options |= {"is_secure": False, "region": "us-east-1", "wait_time_seconds": 1}
    with App(
        "stock",
        broker=url,
        backend="cache+memory://",
        set_as_current=False,
        task_default_queue=f"stock-{uuid4().hex[:12]}",
        broker_transport_options=options,
    ) as app:
        app.add = app.task(lambda x, y: x + y, name="stock.add")  # type: ignore[attr-defined]
        yield app


def test_tasks_make_the_round_trip(app: App) -> None:
    with start_worker(app):
        results = [app.tasks["stock.add"].delay(n, n) for n in range(5)]
        assert [result.get(timeout=30) for result in results] == [0, 2, 4, 6, 8]


def test_a_countdown_is_kept(app: App) -> None:
    with start_worker(app):
        began = time.time()
        assert app.tasks["stock.add"].apply_async((1, 1), countdown=1).get(timeout=30) == 2
        assert time.time() - began >= 1


def test_waiting_messages_can_be_purged(app: App) -> None:
    for _ in range(3):
        app.tasks["stock.add"].delay(1, 1)

    assert app.control.purge() == 3

    with start_worker(app) as worker:
        assert app.tasks["stock.add"].delay(2, 2).get(timeout=30) == 4
        assert worker.state.processed == 1


def test_an_unregistered_task_is_put_aside(app: App) -> None:
    with start_worker(app):
        unknown = app.send_task("stock.nosuch")
        assert type(unknown.get(timeout=30, propagate=False)).__name__ == "NotRegistered"
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(f"{app.conf.task_default_queue}.dead", no_ack=True)
        message = queue.get(timeout=10)
        assert message.headers["id"] == unknown.id
        assert "not registered" in message.headers["x-dead-letter-reason"]
        queue.close()


def test_a_missing_broadcast_is_said_at_the_start(app: App, caplog: pytest.LogCaptureFixture) -> None:
    with app.connection_for_read() as connection:
        can = "fanout" in connection.transport.implements.exchange_type
    with caplog.at_level(logging.INFO), start_worker(app):
        pass
    assert ("Remote control is off" in caplog.text) is not can
