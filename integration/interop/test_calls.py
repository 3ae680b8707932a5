"""Single tasks cross over: client of one side, worker of the other, result read by the client."""

from __future__ import annotations

from pathlib import Path

from interop_cluster import Cluster, wait_until

Crossing = tuple[str, str]


def test_a_result_comes_back(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"answer = add.apply_async((2,), {{'y': 3}}, queue={cluster.queue(worker)!r}).get(timeout=30)"
    assert cluster.client(client, lines) == 5


def test_the_worker_meant_is_the_one_that_ran_it(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"answer = node.apply_async(queue={cluster.queue(worker)!r}).get(timeout=30)"
    assert cluster.client(client, lines) == cluster.node(worker)


def test_a_task_is_called_by_name_alone(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"answer = app.send_task('interop.add', (1, 1), queue={cluster.queue(worker)!r}).get(timeout=30)"
    assert cluster.client(client, lines) == 2


def test_an_exception_keeps_its_type_and_arguments(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"""
result = fail.apply_async(queue={cluster.queue(worker)!r})
try:
    result.get(timeout=30)
except ValueError as error:
    answer = [type(error).__name__, list(error.args), result.state, "in fail" in result.traceback]
"""
    assert cluster.client(client, lines) == ["ValueError", ["broken", 7], "FAILURE", True]


def test_an_unknown_task_is_a_failure_that_the_client_sees(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"""
result = app.send_task('interop.nobody', queue={cluster.queue(worker)!r})
try:
    result.get(timeout=30)
except Exception as error:
    answer = [type(error).__name__, result.state]
"""
    assert cluster.client(client, lines) == ["NotRegistered", "FAILURE"]


def test_a_task_is_tried_again(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"answer = retrying.apply_async((2,), queue={cluster.queue(worker)!r}).get(timeout=30)"
    assert cluster.client(client, lines) == 2


def test_a_countdown_is_waited_for(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"""
import time
sent = time.monotonic()
result = add.apply_async((1,), queue={cluster.queue(worker)!r}, countdown=1.5)
result.get(timeout=30)
answer = time.monotonic() - sent
"""
    assert 1.0 < cluster.client(client, lines) < 15


def test_an_expired_task_is_revoked(cluster: Cluster, crossing: Crossing) -> None:
    """It expires while the worker holds it for its countdown: RabbitMQ itself would drop it in the queue."""
    client, worker = crossing
    lines = f"""
result = add.apply_async((1,), queue={cluster.queue(worker)!r}, expires=1.0, countdown=1.5)
try:
    result.get(timeout=30)
except TaskRevokedError:
    answer = result.state
"""
    assert cluster.client(client, lines) == "REVOKED"


def test_callbacks_cross_over_again(cluster: Cluster, crossing: Crossing, tmp_path: Path) -> None:
    client, worker = crossing
    good, bad = tmp_path / "good", tmp_path / "bad"
    other = cluster.queue("q" if worker == "celery" else "celery")
    lines = f"""
queue, other = {cluster.queue(worker)!r}, {other!r}
add.apply_async((2, 2), queue=queue, link=touch.s({str(good)!r}).set(queue=other))
answer = fail.apply_async(queue=queue, link_error=touch.s({str(bad)!r}).set(queue=other)).id
"""
    failed_id = cluster.client(client, lines)
    wait_until(lambda: good.exists() and bad.exists() and bool(bad.read_text()), "both callbacks")
    assert good.read_text() == "[4]"
    assert failed_id in bad.read_text()


def test_the_extended_result_names_task_worker_and_queue(cluster: Cluster, crossing: Crossing) -> None:
    client, worker = crossing
    lines = f"""
result = add.apply_async((2,), {{'y': 3}}, queue={cluster.queue(worker)!r})
result.get(timeout=30)
answer = [result.name, list(result.args), result.kwargs, result.worker, result.queue]
"""
    expected = ["interop.add", [2], {"y": 3}, cluster.node(worker), cluster.queue(worker)]
    assert cluster.client(client, lines) == expected
