"""Celery's worker and client on our SQLite and AMQP transports, beside our worker. For Redis see `redis-qbrokers`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop_cluster import Cluster

TRANSPORTS = {"sqlite": "qbrokers.sqlite:Transport", "amqp": "qbrokers.amqp:Transport"}


@pytest.fixture(scope="module", params=TRANSPORTS)
def served(
    request: pytest.FixtureRequest,
    celery_python: Path,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """Celery's worker on a transport of ours, and our worker."""
    directory = tmp_path_factory.mktemp(f"celery-on-{request.param}")
    url = f"sqlite:///{directory}/broker.db"
    if request.param != "sqlite":
        url = request.getfixturevalue(f"{request.param}_url")
    name = f"interop-{uuid.uuid4().hex[:8]}"
    transport = TRANSPORTS[request.param]
    cluster = Cluster(url, redis_url, celery_python, directory, name, transport, transport)
    try:
        cluster.start_worker("celery")
        cluster.start_worker("q")
        yield cluster
    finally:
        cluster.stop()


def test_calls_cross_over(served: Cluster, crossing: tuple[str, str]) -> None:
    client, worker = crossing
    lines = f"""
results = [add.apply_async((n, 1), queue={served.queue(worker)!r}) for n in range(50)]
answer = [result.get(timeout=30) for result in results]
"""
    assert served.client(client, lines) == list(range(1, 51))


def test_celery_serves_itself(served: Cluster) -> None:
    lines = """
header = [add.s(n, 1).set(queue=CELERY) for n in range(5)]
answer = chord(header)(total.s().set(queue=CELERY)).get(timeout=30)
"""
    assert served.client("celery", lines) == 15


def test_a_countdown_is_waited_for(served: Cluster, crossing: tuple[str, str]) -> None:
    client, worker = crossing
    begun = time.time()
    lines = f"answer = add.apply_async((1, 1), countdown=1, queue={served.queue(worker)!r}).get(timeout=30)"
    assert served.client(client, lines) == 2
    assert time.time() - begun >= 1


def test_a_task_is_tried_again(served: Cluster, crossing: tuple[str, str]) -> None:
    client, worker = crossing
    lines = f"answer = retrying.apply_async((2,), queue={served.queue(worker)!r}).get(timeout=30)"
    assert served.client(client, lines) == 2


@pytest.mark.parametrize("side", ["celery", "q"])
def test_both_answer_a_ping(served: Cluster, side: str) -> None:
    replies = json.loads(served.tool(side, "inspect", "ping", "--json"))
    assert {served.node("celery"), served.node("q")} <= set(replies)
