"""What is Amazon SQS's own: visibility timeouts, long polls, servers that do not answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu.utils.url import parse_url
from servers.moto import Moto
from servers.process import free_port

from qcore import App
from qworker.testing import start_worker

# kombu's HTTP client uses deprecated calls of pycurl.
pytestmark = pytest.mark.filterwarnings("ignore:(socket_all|IOCTLFUNCTION) is deprecated:DeprecationWarning")

OPTIONS: dict[str, Any] = {
    "is_secure": False,
    "region": "us-east-1",
    "wait_time_seconds": 1,
    "polling_interval": 0.05,
}


class Project:
    """An app with a queue of its own, and its worker processes."""

    def __init__(self, url: str, directory: Path, **options: Any) -> None:
        self.settings = {
            "task_default_queue": f"sqs-{uuid4().hex[:12]}",
            "broker_transport_options": {**OPTIONS, **options},
            "result_backend": "disabled://",
        }
        self.directory = directory
        self.traces = directory / "traces"
        self.environment = {**os.environ, "SQS_URL": url, "SQS_SETTINGS": json.dumps(self.settings)}
        self.app = App("sqs", broker=url, set_as_current=False)
        self.app.conf.update(self.settings)
        self.workers: list[subprocess.Popen[bytes]] = []

    def send(self, name: str, seconds: float = 0.0) -> None:
        self.app.send_task("sqs.hold", (str(self.traces), name, seconds))

    def start_worker(self) -> subprocess.Popen[bytes]:
        arguments = ["-A", "sqs_app", "worker", "-c", "1", "-n", f"w{len(self.workers)}"]
        with (self.directory / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "qcli", *arguments],
                cwd=Path(__file__).parent,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def lines(self) -> list[str]:
        return self.traces.read_text().splitlines() if self.traces.exists() else []

    def wait_for(self, *lines: str, timeout: float = 60) -> None:
        """Return once all lines were traced."""
        log = self.directory / "worker.log"
        until(
            lambda: set(lines) <= set(self.lines()),
            lambda: f"only {self.lines()} of {lines}; {log.read_text()}",
            timeout,
        )

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.app.close()


def until(condition: Callable[[], object], problem: Callable[[], str], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, problem()
        time.sleep(0.02)


@pytest.fixture
def make_project(sqs_url: str, tmp_path: Path) -> Iterator[Callable[..., Project]]:
    projects: list[Project] = []

    def make(url: str = sqs_url, **options: Any) -> Project:
        projects.append(Project(url, tmp_path, **options))
        return projects[-1]

    yield make
    for project in projects:
        project.close()


def make_adder(url: str, **options: Any) -> App:
    app = App(
        "sqs",
        broker=url,
        backend="cache+memory://",
        set_as_current=False,
        task_default_queue=f"sqs-{uuid4().hex[:12]}",
        broker_transport_options={**OPTIONS, **options},
    )
    app.task(lambda x, y: x + y, name="sqs.add")
    return app


@pytest.fixture
def adder(sqs_url: str) -> Iterator[App]:
    with make_adder(sqs_url) as app:
        yield app


def sqs_client(app: App) -> Any:
    with app.connection_for_write() as connection:
        return connection.default_channel.sqs()


def test_a_client_sends_without_a_worker(make_project: Callable[..., Project]) -> None:
    project = make_project()
    project.send("a")
    with project.app.connection_for_read() as connection:
        queue = connection.SimpleQueue(project.app.conf.task_default_queue)
        message = queue.get(timeout=10)
        assert message.headers["task"] == "sqs.hold"
        message.ack()
        assert queue.qsize() == 0
        queue.close()


def test_a_killed_workers_late_task_comes_back_after_the_visibility_timeout(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(visibility_timeout=3)
    worker = project.start_worker()
    project.send("a", 1)
    project.wait_for("begin a")
    worker.kill()
    worker.wait()
    project.start_worker()
    until(
        lambda: project.lines().count("begin a") >= 2, lambda: (project.directory / "worker.log").read_text()
    )


def test_a_task_longer_than_the_visibility_timeout_runs_once(make_project: Callable[..., Project]) -> None:
    project = make_project(visibility_timeout=3)
    project.send("long", 7)
    project.start_worker()
    project.wait_for("begin long")
    project.start_worker()
    project.wait_for("end long")
    assert project.lines() == ["begin long", "end long"]


def test_a_warm_shutdown_gives_back_what_has_not_begun(make_project: Callable[..., Project]) -> None:
    project = make_project()
    for number in range(8):  # more than the prefetch count
        project.send(str(number), 0.4)
    worker = project.start_worker()
    until(project.lines, lambda: "no task has begun")
    worker.terminate()
    assert worker.wait(30) == 0
    done = len(project.lines())
    assert done < 16

    project.start_worker()  # long before the visibility timeout, which is half an hour
    project.wait_for(*(f"end {number}" for number in range(8)))
    assert len(project.lines()) == 16


def test_an_idle_worker_costs_no_time(adder: App) -> None:
    with start_worker(adder):
        assert adder.tasks["sqs.add"].delay(1, 1).get(timeout=30) == 2
        began = time.process_time()
        time.sleep(3)  # what is measured
        assert time.process_time() - began < 0.5
        assert adder.tasks["sqs.add"].delay(2, 2).get(timeout=30) == 4


def test_a_full_worker_goes_on_when_there_is_room(adder: App) -> None:
    adder.conf.broker_transport_options = {**OPTIONS, "polling_interval": 60}
    with start_worker(adder, prefetch_multiplier=1):
        results = [adder.tasks["sqs.add"].delay(n, n) for n in range(20)]
        assert [result.get(timeout=30) for result in results] == [2 * n for n in range(20)]


def test_a_worker_receives_again_after_an_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server, port = Moto(), free_port()
    url = server.start_on(port, tmp_path)
    try:
        with make_adder(url) as app, start_worker(app):
            assert app.tasks["sqs.add"].delay(1, 1).get(timeout=30) == 2
            server.stop()
            until(lambda: "Receiving from the SQS queue" in caplog.text, lambda: caplog.text)
            server.start_on(port, tmp_path)  # empty: the queue is gone, too
            assert app.tasks["sqs.add"].delay(2, 2).get(timeout=30) == 4
    finally:
        server.stop()


def test_a_deleted_queue_is_made_anew(adder: App, caplog: pytest.LogCaptureFixture) -> None:
    client = sqs_client(adder)
    with start_worker(adder):
        assert adder.tasks["sqs.add"].delay(1, 1).get(timeout=30) == 2
        url = client.get_queue_url(QueueName=adder.conf.task_default_queue)["QueueUrl"]
        client.delete_queue(QueueUrl=url)
        until(lambda: "QueueDoesNotExist" in caplog.text, lambda: caplog.text)
        assert adder.tasks["sqs.add"].delay(2, 2).get(timeout=30) == 4


def test_predefined_queues_need_no_right_to_list_or_make_queues(sqs_url: str, adder: App) -> None:
    name = adder.conf.task_default_queue
    client = sqs_client(adder)
    queues = {
        each: {"url": client.create_queue(QueueName=each)["QueueUrl"]} for each in (name, f"{name}-dead")
    }
    adder.conf.broker_transport_options = {**OPTIONS, "predefined_queues": queues}
    with start_worker(adder):
        assert adder.tasks["sqs.add"].delay(1, 1).get(timeout=30) == 2
        unknown = adder.send_task("sqs.nosuch")
        assert type(unknown.get(timeout=30, propagate=False)).__name__ == "NotRegistered"
    with adder.connection_for_read() as connection:
        assert connection.default_channel._size(f"{name}.dead") == 1


def test_a_missing_client_library_is_named() -> None:
    program = "import sys; sys.modules['pycurl'] = None; import qcore; qcore.App(broker='sqs://').connection_for_read()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "pip install 'qbrokers[sqs]'" in done.stderr


def test_the_url_names_host_and_port(sqs_url: str, adder: App) -> None:
    endpoint = sqs_client(adder).meta.endpoint_url
    assert endpoint == f"http://127.0.0.1:{parse_url(sqs_url)['port']}"
