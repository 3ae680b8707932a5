"""Bad messages and an absent broker: a clear log line each, the worker lives, nothing else is lost (W9, B7, B13)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import pytest
from project import Project, wait_until
from proxy import Proxy

from qcore.errors import OperationalError

BROKERS = ("embedded", "redis", "amqp")


def publish(project: Project, body: Any, content_type: str = "application/json", **headers: Any) -> None:
    with project.app.connection_for_write() as connection:
        queue = project.app.amqp.queues[project.queue]
        producer = connection.Producer()
        producer.publish(
            body, routing_key=queue.name, exchange="", declare=[queue], headers=headers,
            content_type=content_type, content_encoding="utf-8",
        )  # fmt: skip


BAD = {
    "no task at all": (b'{"hello": 1}', "application/json", {}),
    "not even JSON": (b"{[broken", "application/json", {"task": "lab.add", "id": "bad-json"}),
    "a body of two parts": (b"[[1, 2], {}]", "application/json", {"task": "lab.add", "id": "two-parts"}),
    "keyword arguments that are a list": (b"[[1], [], {}]", "application/json", {"task": "lab.add", "id": "kw"}),
    "no id": (b"[[1, 2], {}, {}]", "application/json", {"task": "lab.add"}),
    "a number as name": (b"[[1, 2], {}, {}]", "application/json", {"task": 5, "id": "number"}),
    "pickle": (b"\x80\x05.", "application/x-python-serialize", {"task": "lab.add", "id": "pickle"}),
    "an unknown content type": (b"??", "application/x-unknown", {"task": "lab.add", "id": "unknown-type"}),
    "an eta that is no time": (b"[[1, 2], {}, {}]", "application/json", {"task": "lab.add", "id": "e", "eta": "soon"}),
    "bytes that are no text": (b"\xff\xfe\x00", "application/json", {"task": "lab.add", "id": "bytes"}),
    "stamps that are no object": (
        b"[[1, 2], {}, {}]", "application/json", {"task": "lab.add", "id": "stamps", "stamps": "red"}
    ),
    "a number as names of stamps": (
        b"[[1, 2], {}, {}]", "application/json", {"task": "lab.add", "id": "names", "stamped_headers": 5}
    ),
    "a body nested too deeply": (b"[" * 100_000 + b"]" * 100_000, "application/json", {"task": "lab.add", "id": "d"}),
    "a compression that nobody knows": (
        b"[[1, 2], {}, {}]", "application/json", {"task": "lab.add", "id": "zip", "compression": "application/x-nix"}
    ),
    "limits that are words": (
        b"[[1, 2], {}, {}]", "application/json", {"task": "lab.add", "id": "lim", "timelimit": ["a", "b"]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("broker", BROKERS)
def test_every_bad_message_leaves_a_line_and_a_living_worker(
    make_project: Callable[[str], Project], broker: str
) -> None:
    project = make_project(broker)
    worker = project.start_worker().wait_ready()
    add = project.task("add")

    for name, (body, content_type, headers) in BAD.items():
        before = len(worker.log)
        publish(project, body, content_type, **headers)
        assert add.delay(2, 3).get(timeout=20) == 5, name
        wait_until(
            lambda before=before: any(
                word in worker.log[before:] for word in ("WARNING", "ERROR", "CRITICAL")
            ),
            f"a log line about {name}; {worker.log[before:]}",
        )
        assert worker.process.poll() is None, name
    assert worker.stop() == 0


@pytest.mark.parametrize("broker", BROKERS)
def test_a_bad_message_does_not_come_back_to_the_next_worker(
    make_project: Callable[[str], Project], broker: str
) -> None:
    project = make_project(broker)
    first = project.start_worker().wait_ready()
    for body, content_type, headers in BAD.values():
        publish(project, body, content_type, **headers)
    assert project.task("add").delay(1, 1).get(timeout=20) == 2
    assert first.stop() == 0

    second = project.start_worker().wait_ready()

    assert project.task("add").delay(1, 1).get(timeout=20) == 2
    assert "ERROR" not in second.log
    assert "CRITICAL" not in second.log


@pytest.mark.parametrize("broker", BROKERS)
def test_unknown_task_and_wrong_arguments_end_as_failures(
    make_project: Callable[[str], Project], broker: str
) -> None:
    project = make_project(broker)
    worker = project.start_worker().wait_ready()

    unknown = project.app.send_task("lab.nosuch")
    wrong = project.app.send_task("lab.add", (1,))

    assert type(unknown.get(timeout=20, propagate=False)).__name__ == "NotRegistered"
    assert isinstance(wrong.get(timeout=20, propagate=False), TypeError)
    assert "lab.nosuch" in worker.log
    assert project.task("add").delay(1, 1).get(timeout=20) == 2


@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_a_broker_that_is_away_at_start_is_waited_for(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    monkeypatch.chdir(tmp_path)
    url = urlsplit(request.getfixturevalue(f"{broker}_url"))
    with Proxy(url.hostname or "127.0.0.1", url.port or 0) as proxy:
        proxy.refuse()
        project = Project(tmp_path, _through(url, proxy), request.getfixturevalue("redis_url"))
        try:
            worker = project.start_worker()
            wait_until(lambda: "annot connect" in worker.log, "a line about the broker")
            assert worker.process.poll() is None
            proxy.accept()
            worker.wait_ready()
            assert project.task("add").delay(1, 1).get(timeout=20) == 2
        finally:
            project.close()


@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_a_broker_lost_in_mid_load_costs_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    monkeypatch.chdir(tmp_path)
    url = urlsplit(request.getfixturevalue(f"{broker}_url"))
    count = 300
    with Proxy(url.hostname or "127.0.0.1", url.port or 0) as proxy:
        project = Project(tmp_path, _through(url, proxy), request.getfixturevalue("redis_url"))
        try:
            worker = project.start_worker().wait_ready()
            late = project.task("late")
            with project.app.bulk():
                for number in range(count):
                    late.delay(number, seconds=0.01)
            for part in range(1, 4):
                project.wait_for_effects(part * count // 5)
                proxy.cut()
            project.wait_for_effects(count)
            assert set(project.effects()) == set(range(count))
            if broker == "redis":  # an ack is good on any connection there, so nothing runs twice
                assert len(project.effects()) == count
            assert worker.process.poll() is None
        finally:
            project.close()


def test_sending_to_a_broker_that_froze_ends_in_time(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = urlsplit(redis_url)
    with Proxy(url.hostname or "127.0.0.1", url.port or 0) as proxy:
        project = Project(tmp_path, _through(url, proxy), redis_url)
        try:
            add = project.task("add")
            add.delay(1, 1)
            proxy.freeze()
            started = time.monotonic()
            with pytest.raises(OperationalError, match=str(proxy.port)):
                add.delay(1, 1)
            assert time.monotonic() - started < 20  # one overall deadline, not one per layer
            proxy.thaw()
        finally:
            project.close()


def _through(url: SplitResult, proxy: Proxy) -> str:
    login, at, _ = url.netloc.rpartition("@")
    return urlunsplit(url._replace(netloc=f"{login}{at}127.0.0.1:{proxy.port}"))
