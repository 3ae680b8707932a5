"""Results that one side writes and the other reads, in the stores besides Redis."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop_cluster import Cluster

Crossing = tuple[str, str]


@pytest.fixture(scope="module", params=["rpc", "database"])
def cluster(
    request: pytest.FixtureRequest,
    celery_python: Path,
    amqp_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """Both workers on RabbitMQ, with results as messages or in an SQL database."""
    directory = tmp_path_factory.mktemp(f"interop-{request.param}")
    results = {"rpc": "rpc://", "database": f"db+sqlite:///{directory}/results.db"}[request.param]
    name = f"interop-{uuid.uuid4().hex[:8]}"
    cluster = Cluster(amqp_url, results, celery_python, directory, name)
    try:
        cluster.start_worker("celery")
        cluster.start_worker("q")
        yield cluster
    finally:
        cluster.stop()


def test_a_result_comes_back(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"""
result = add.apply_async((2,), {{"y": 3}}, queue={cluster.queue(worker)!r})
answer = [result.get(timeout=30), result.state]
"""
    assert cluster.client(client, lines) == [5, "SUCCESS"]


def test_an_exception_keeps_its_type_and_arguments(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"""
result = fail.apply_async(queue={cluster.queue(worker)!r})
try:
    result.get(timeout=30)
except ValueError as error:
    answer = [list(error.args), result.state, "in fail" in result.traceback]
"""
    assert cluster.client(client, lines) == [["broken", 7], "FAILURE", True]


def test_many_results_find_their_tasks(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"""
results = [add.apply_async((number,), queue={cluster.queue(worker)!r}) for number in range(30)]
answer = [result.get(timeout=30) for result in reversed(results)]
"""
    assert cluster.client(client, lines) == list(reversed(range(30)))


@pytest.mark.parametrize("client", ["celery", "q"])
def test_a_chain_crosses_over(cluster: Cluster, client: str) -> None:
    lines = """
steps = chain(trail.s([]).set(queue=Q), trail.s().set(queue=CELERY), trail.s().set(queue=Q))
answer = steps.apply_async().get(timeout=30)
"""
    ours, theirs = cluster.node("q"), cluster.node("celery")
    assert cluster.client(client, lines) == [ours, theirs, ours]


@pytest.mark.parametrize("client", ["celery", "q"])
def test_a_chord_is_counted_where_the_store_can(cluster: Cluster, client: str) -> None:
    """A database is polled by a task of the client's; results as messages cannot be counted: a clear refusal."""
    lines = """
header = [add.s(number).set(queue=Q if number % 2 else CELERY) for number in range(6)]
try:
    answer = chord(header)(total.s().set(queue=CELERY)).get(timeout=30)
except (NotImplementedError, ImproperlyConfigured):
    answer = "refused"
"""
    expected = "refused" if cluster.result_url == "rpc://" else 15
    assert cluster.client(client, lines) == expected
