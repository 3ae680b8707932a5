"""Work-flows whose tasks run partly on our worker and partly on Celery's, started by either client."""

from __future__ import annotations

import pytest
from interop_cluster import Cluster

CLIENTS = ["celery", "q"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_chain_passes_its_result_to_and_fro(cluster: Cluster, client: str) -> None:
    lines = """
first = trail.s([]).set(queue=Q)
steps = chain(first, *[trail.s().set(queue=queue) for queue in (CELERY, Q, CELERY)])
answer = steps.apply_async().get(timeout=30)
"""
    ours, theirs = cluster.node("q"), cluster.node("celery")
    assert cluster.client(client, lines) == [ours, theirs, ours, theirs]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_chain_may_begin_on_the_other_side(cluster: Cluster, client: str) -> None:
    lines = """
steps = chain(trail.s([]).set(queue=CELERY), trail.s().set(queue=Q))
answer = steps.apply_async().get(timeout=30)
"""
    assert cluster.client(client, lines) == [cluster.node("celery"), cluster.node("q")]


@pytest.mark.parametrize("client", CLIENTS)
def test_an_error_ends_a_chain_wherever_it_happens(cluster: Cluster, client: str) -> None:
    lines = """
result = chain(add.s(1, 1).set(queue=Q), fail.si().set(queue=CELERY), add.si(1, 1).set(queue=Q)).apply_async()
try:
    result.parent.get(timeout=30)
except ValueError as error:
    answer = [list(error.args), result.parent.state, result.state]
"""
    assert cluster.client(client, lines)[:2] == [["broken", 7], "FAILURE"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_group_spreads_over_both(cluster: Cluster, client: str) -> None:
    lines = """
result = group(node.si().set(queue=queue) for queue in (Q, CELERY, Q, CELERY)).apply_async()
answer = result.get(timeout=30)
"""
    ours, theirs = cluster.node("q"), cluster.node("celery")
    assert cluster.client(client, lines) == [ours, theirs, ours, theirs]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("body", ["Q", "CELERY"])
def test_a_chord_counts_the_parts_of_both(cluster: Cluster, client: str, body: str) -> None:
    lines = f"""
header = [add.s(number, number).set(queue=Q if number % 2 else CELERY) for number in range(10)]
answer = chord(header)(total.s().set(queue={body})).get(timeout=30)
"""
    assert cluster.client(client, lines) == sum(2 * number for number in range(10))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_chord_keeps_the_order_of_its_header(cluster: Cluster, client: str) -> None:
    lines = """
header = [add.s(number).set(queue=Q if number % 2 else CELERY) for number in range(8)]
answer = chord(header)(trail.s().set(queue=Q)).get(timeout=30)
"""
    assert cluster.client(client, lines)[:-1] == list(range(8))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_failed_part_fails_the_chord(cluster: Cluster, client: str) -> None:
    lines = """
result = chord([add.s(1, 1).set(queue=Q), fail.si().set(queue=CELERY)])(total.s().set(queue=Q))
error = result.get(timeout=30, propagate=False)
answer = [type(error).__name__, result.state]
"""
    assert cluster.client(client, lines) == ["ChordError", "FAILURE"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_chord_stands_in_a_chain(cluster: Cluster, client: str) -> None:
    lines = """
parts = group(add.s(10).set(queue=CELERY), add.s(20).set(queue=Q))
steps = chain(add.s(1, 1).set(queue=Q), parts, total.s().set(queue=CELERY), add.s(100).set(queue=Q))
answer = steps.apply_async().get(timeout=30)
"""
    assert cluster.client(client, lines) == 134
