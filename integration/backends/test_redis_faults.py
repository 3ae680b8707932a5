"""Waiting for results while connections to Redis break."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from qcore import states
from qcore.app import App
from qcore.backend.record import ResultRecord
from qcore.errors import BackendStoreError
from qcore.request import Context


@pytest.fixture
def name() -> str:
    return f"faults-{uuid4().hex[:8]}"


@pytest.fixture
def client(redis_url: str, name: str) -> Iterator[Any]:
    """An app whose connections can be told from others by their name."""
    app = App("client", broker="memory://", backend=redis_url, redis_client_name=name)
    yield app
    app.close()


@pytest.fixture
def worker(redis_url: str) -> Iterator[Any]:
    app = App("worker", broker="memory://", backend=redis_url, set_as_current=False)
    yield app
    app.close()


def connections(app: Any, name: str) -> list[Any]:
    return [found for found in app.backend.client.client_list() if found["name"] == name]


def store(app: Any, task_id: str, value: Any) -> None:
    app.backend.store(ResultRecord.of(Context(id=task_id), states.SUCCESS, value))
    app.backend.flush()


def eventually(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        threading.Event().wait(0.01)


def test_all_waiters_return_though_their_connections_are_killed(client: Any, worker: Any, name: str) -> None:
    ids = [str(uuid4()) for _ in range(64)]
    values: dict[str, Any] = {}

    def wait(task_id: str) -> None:
        values[task_id] = client.AsyncResult(task_id).get(timeout=20)

    async def await_all() -> list[Any]:
        return list(await asyncio.gather(*(client.AsyncResult(task_id) for task_id in ids[:8])))

    awaited: list[Any] = []
    threads = [threading.Thread(target=wait, args=(task_id,)) for task_id in ids]
    threads.append(threading.Thread(target=lambda: awaited.extend(asyncio.run(await_all()))))
    for thread in threads:
        thread.start()
    eventually(lambda: any(int(c["sub"]) >= len(ids) for c in connections(worker, name)))
    for number, task_id in enumerate(ids):
        if number % 16 == 0:
            for connection in connections(worker, name):
                worker.backend.client.client_kill_filter(_id=connection["id"])
        store(worker, task_id, number)
    for thread in threads:
        thread.join(30)
    assert values == {task_id: number for number, task_id in enumerate(ids)}
    assert awaited == list(range(8))


def test_nothing_stays_subscribed(client: Any, worker: Any, name: str) -> None:
    ids = [str(uuid4()) for _ in range(200)]
    threads = [
        threading.Thread(target=lambda some=ids[n::50]: [client.AsyncResult(i).get(timeout=20) for i in some])
        for n in range(50)
    ]
    for thread in threads:
        thread.start()
    for task_id in ids:
        store(worker, task_id, 1)
    for thread in threads:
        thread.join(30)
    eventually(lambda: all(int(connection["sub"]) == 0 for connection in connections(worker, name)))
    assert len(connections(worker, name)) <= 52


def test_a_server_that_is_away_is_an_error_and_loses_nothing(redis_url: str) -> None:
    policy = {"retry_policy": {"max_retries": 1, "interval_start": 0}}
    app = App(
        "away",
        broker="memory://",
        backend="redis://127.0.0.1:1/0",
        result_backend_transport_options=policy,
        set_as_current=False,
    )
    task_id = str(uuid4())
    app.backend.store(ResultRecord.of(Context(id=task_id), states.SUCCESS, 7))
    with pytest.raises(BackendStoreError, match=r"127\.0\.0\.1:1"):
        app.backend.flush()
    home = App("home", broker="memory://", backend=redis_url, set_as_current=False)
    app.backend.client.connection_pool = home.backend.client.connection_pool
    app.backend.flush()
    assert home.AsyncResult(task_id).get(timeout=5) == 7
    home.close()
