"""What a queue may hold without stopping the worker (acceptance table W9)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from worker_helpers import connected, make_app, publish_raw, queue_size, wait_until

from qcore import App
from qcore.errors import NotRegistered, TaskRevokedError
from qcore.signals import task_rejected, task_unknown
from qworker.testing import ThreadWorker, start_worker


@pytest.fixture
def app() -> App:
    app = make_app()

    @app.task(name="t.add")
    def add(x: int, y: int) -> int:
        return x + y

    return app


@pytest.fixture
def worker(app: App) -> Iterator[ThreadWorker]:
    with start_worker(app) as worker:
        yield worker


def still_works(app: App) -> None:
    assert app.send_task("t.add", (2, 3)).get(timeout=10) == 5
    wait_until(lambda: queue_size(app) == 0, "the empty queue")


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        ({"hello": "world"}, {}, "not a task"),
        ([1, 2, 3], {}, "not a task"),
        ("text", {}, "not a task"),
        ({"task": "t.add"}, {}, "not a task"),
        ([[], {}, {}], {"task": "t.add"}, "'id' must be"),
        ([[], {}, {}], {"task": "t.add", "id": ""}, "'id' must be"),
        ([[], {}, {}], {"task": "t.add", "id": 7}, "'id' must be"),
        ([[], {}, {}], {"task": None, "id": "x"}, "'task' must be"),
        ([[], {}, {}], {"task": ["t.add"], "id": "x"}, "'task' must be"),
        ([[], {}, {}], {"task": "t.add", "id": "x", "eta": "soon"}, "'eta' must be a time"),
        ([[], {}, {}], {"task": "t.add", "id": "x", "expires": {}}, ""),
        ([[], {}, {}], {"task": "t.add", "id": "x", "expires": "never"}, "'expires' must be a time"),
    ],
)
def test_malformed_message_is_rejected_with_a_clear_line(
    app: App,
    worker: ThreadWorker,
    caplog: pytest.LogCaptureFixture,
    body: Any,
    headers: dict[str, Any],
    text: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        publish_raw(app, body, headers)
        still_works(app)
    assert text in caplog.text


def test_rejected_message_is_signalled(app: App, worker: ThreadWorker) -> None:
    seen: list[Any] = []
    with connected(task_rejected, lambda message, **kwargs: seen.append(message.body)):
        publish_raw(app, {"no": "task"})
        wait_until(lambda: seen, "the signal task_rejected")


def test_unknown_task_fails_and_is_signalled(
    app: App, worker: ThreadWorker, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    with connected(task_unknown, lambda name, id, **kwargs: seen.append((name, id))):
        result = app.send_task("t.nowhere")
        with pytest.raises(NotRegistered):
            result.get(timeout=10)
    assert seen == [("t.nowhere", result.id)]
    assert "unregistered task of type 't.nowhere'" in caplog.text
    still_works(app)


def test_two_element_body_fails_the_task_alone(app: App, worker: ThreadWorker) -> None:
    publish_raw(app, [[], {}], {"task": "t.add", "id": "two-elements"})
    with pytest.raises(Exception, match="body must be"):
        app.AsyncResult("two-elements").get(timeout=10)
    still_works(app)


def test_undecodable_body_fails_the_task_alone(app: App, worker: ThreadWorker) -> None:
    publish_raw(
        app, "{", {"task": "t.add", "id": "bad-json"}, serializer=None, content_type="application/json"
    )
    with pytest.raises(Exception):  # noqa: B017 - which error is the decoder's affair
        app.AsyncResult("bad-json").get(timeout=10)
    still_works(app)


def test_undecompressable_body_is_rejected(
    app: App, worker: ThreadWorker, caplog: pytest.LogCaptureFixture
) -> None:
    publish_raw(app, [[], {}, {}], {"task": "t.add", "id": "bad-gzip", "compression": "application/x-gzip"})
    with pytest.raises(Exception):  # noqa: B017 - which error is the codec's affair
        app.AsyncResult("bad-gzip").get(timeout=10)
    still_works(app)
    assert "Can't decode message body" in caplog.text


def test_content_type_that_is_not_accepted_is_rejected(
    app: App, worker: ThreadWorker, caplog: pytest.LogCaptureFixture
) -> None:
    publish_raw(app, [[1, 2], {}, {}], {"task": "t.add", "id": "pickled"}, serializer="pickle")
    with pytest.raises(Exception, match="Refusing to deserialize"):
        app.AsyncResult("pickled").get(timeout=10)
    assert "application/x-python-serialize" in caplog.text
    still_works(app)


def test_compressed_message_runs(app: App, worker: ThreadWorker) -> None:
    assert app.send_task("t.add", (1, 2), compression="gzip").get(timeout=10) == 3


def test_protocol_1_message_runs(app: App, worker: ThreadWorker) -> None:
    publish_raw(app, {"task": "t.add", "id": "one", "args": [4, 5], "kwargs": {}})
    assert app.AsyncResult("one").get(timeout=10) == 9


def test_protocol_2_headers_with_a_protocol_1_body_run(app: App, worker: ThreadWorker) -> None:
    publish_raw(app, [[4, 5], {}, None], {"task": "t.add", "id": "minimal"})
    assert app.AsyncResult("minimal").get(timeout=10) == 9


def test_message_delivered_too_often_is_put_aside(
    app: App, worker: ThreadWorker, caplog: pytest.LogCaptureFixture
) -> None:
    past = {"x-lost-deliveries": 99, "x-trial": 98}
    publish_raw(app, [[1, 2], {}, {}], {"task": "t.add", "id": "poison", **past})
    with pytest.raises(Exception, match="99 deliveries ended with the death"):
        app.AsyncResult("poison").get(timeout=10)
    still_works(app)


def test_expired_task_is_revoked(app: App, worker: ThreadWorker) -> None:
    publish_raw(app, [[1, 2], {}, {}], {"task": "t.add", "id": "late", "expires": "2001-01-01T00:00:00"})
    with pytest.raises(TaskRevokedError, match="expired"):
        app.AsyncResult("late").get(timeout=10)


def test_task_registered_after_the_start_runs(app: App, worker: ThreadWorker) -> None:
    @app.task(name="t.mul")
    def mul(x: int, y: int) -> int:
        return x * y

    assert mul.delay(3, 4).get(timeout=10) == 12
