"""A queue that is there with other arguments, or that the user may not use: which one, and what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from project import Project, wait_until
from servers.missing import end_without

from qbrokers.testing.untyped import kombu
from qcore.errors import ImproperlyConfigured, OperationalError


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amqp_url: str, redis_url: str
) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path, amqp_url, redis_url)
    yield made
    with kombu.Connection(amqp_url) as connection:
        connection.default_channel.queue_delete(made.queue)
    made.close()


@pytest.mark.parametrize(
    ("arguments", "durable", "differs"),
    [
        ({}, False, "durable"),
        ({"x-queue-type": "quorum"}, True, "x-queue-type"),
    ],
)
def test_a_worker_names_the_queue_and_stops(
    project: Project, amqp_url: str, arguments: dict[str, Any], durable: bool, differs: str
) -> None:
    with kombu.Connection(amqp_url) as connection:
        queue = kombu.Queue(project.queue, durable=durable, queue_arguments=arguments)
        queue(connection.default_channel).declare()
    worker = project.start_worker("-P", "solo")
    assert worker.process.wait(30) != 0
    line = next(line for line in worker.log.splitlines() if "The worker stops" in line)
    assert f"'{differs}' for queue '{project.queue}'" in line
    assert "declare it alike" in line
    assert "Traceback" not in worker.log


def test_a_deleted_queue_is_declared_again(project: Project, amqp_url: str) -> None:
    worker = project.start_worker("-P", "solo").wait_ready()
    with kombu.Connection(amqp_url) as connection:
        connection.default_channel.queue_delete(project.queue)
    wait_until(lambda: "a queue that it consumes was deleted" in worker.log, "a line about the queue")
    wait_until(lambda: worker.log.count("Connected to") == 2, "a new connection")
    assert project.task("add").delay(2, 3).get(timeout=20) == 5
    assert "Traceback" not in worker.log


@contextmanager
def user_without(permission: int, amqp_url: str) -> Iterator[str]:
    """URL of a user of the test's own who may not configure (0), write (1) or read (2)."""
    control = shutil.which("rabbitmqctl") or shutil.which("rabbitmqctl", path="/usr/sbin:/usr/local/sbin")
    if control is None:
        end_without("RabbitMQ", "no rabbitmqctl to make a user")
    url = urlsplit(amqp_url)
    name, vhost = f"q-test-{uuid4().hex[:8]}", url.path[1:] or "/"

    def run(*words: str) -> None:
        done = subprocess.run([control, "-q", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            end_without("RabbitMQ whose users we may make", done.stderr[:200])

    run("add_user", name, "pw")
    try:
        run(
            "set_permissions", "-p", vhost, name, *("^$" if part == permission else ".*" for part in range(3))
        )
        yield f"amqp://{name}:pw@{url.hostname}:{url.port or 5672}{url.path}"
    finally:
        run("delete_user", name)


@pytest.mark.parametrize("permission", [0, 2])
def test_missing_permissions_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amqp_url: str, redis_url: str, permission: int
) -> None:
    monkeypatch.chdir(tmp_path)
    with user_without(permission, amqp_url) as url:
        project = Project(tmp_path, url, redis_url)
        worker = project.start_worker("-P", "solo")
        try:
            assert worker.process.wait(30) != 0
            line = next(line for line in worker.log.splitlines() if "The worker stops" in line)
            assert "ACCESS_REFUSED" in line
            assert "rabbitmqctl set_permissions" in line
            assert "Traceback" not in worker.log
            call = subprocess.run(
                [sys.executable, "-m", "qcli", "-A", "lab", "call", "lab.add", "-a", "[1, 2]"],
                cwd=tmp_path, env=project.environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert call.returncode == 69
            assert "set_permissions" in call.stderr
            assert len(call.stderr.splitlines()) == 1
        finally:
            worker.kill_all()
            project.app.close()
            project._traces.close()


@pytest.mark.parametrize("part", ["password", "vhost"])
def test_a_wrong_login_ends_sending_with_the_broker_named(
    amqp_url: str, make_app: Callable[[str], Any], part: str
) -> None:
    url = urlsplit(amqp_url)
    wrong = {
        "password": f"amqp://guest:wrong@{url.hostname}:{url.port or 5672}{url.path}",
        "vhost": f"amqp://guest:guest@{url.hostname}:{url.port or 5672}/nowhere",
    }[part]
    app = make_app(wrong)
    with pytest.raises(OperationalError, match=rf"cannot send to the broker .*{url.hostname}") as caught:
        app.send_task("nobody")
    assert "check user and password" in str(caught.value) or "vhost" in str(caught.value)
    assert "guest:wrong" not in str(caught.value)
    assert not isinstance(caught.value, ImproperlyConfigured)


@pytest.fixture
def make_app() -> Iterator[Callable[[str], Any]]:
    from qcore import App

    apps = []

    def make(url: str) -> Any:
        apps.append(App("wrong", broker=url, set_as_current=False))
        return apps[-1]

    yield make
    for app in apps:
        app.close()
