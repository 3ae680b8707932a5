"""One mixed cluster per wiring, shared by all tests here."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from interop_cluster import Cluster
from peers import CELERY, peer_python

WIRINGS = {
    "redis": ("redis_url", "", ""),
    "redis-kombu": ("redis_url", "kombu.transport.redis:Transport", ""),
    "redis-qbrokers": ("redis_url", "", "qbrokers.redis:Transport"),
    "amqp": ("amqp_url", "", ""),
}
"""Fixture of the broker's URL; transport of our side and of Celery's, where it is not each one's own."""


@pytest.fixture(scope="session")
def celery_python() -> Path:
    """The newest Celery 5, in an environment of its own."""
    return peer_python("celery", CELERY)


@pytest.fixture(scope="session", params=WIRINGS)
def cluster(
    request: pytest.FixtureRequest,
    celery_python: Path,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """Both workers running, each on its own queue; results in Redis."""
    url, *transports = WIRINGS[request.param]
    directory = tmp_path_factory.mktemp(f"interop-{request.param}")
    broker_url = request.getfixturevalue(url)
    name = f"interop-{uuid.uuid4().hex[:8]}"
    cluster = Cluster(broker_url, redis_url, celery_python, directory, name, *transports)
    try:
        cluster.start_worker("celery")
        cluster.start_worker("q")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(params=[("celery", "q"), ("q", "celery")], ids=["celery-to-q", "q-to-celery"])
def crossing(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which side is the client, and which one's worker runs the task."""
    client, worker = request.param
    return client, worker
