"""Connections to Redis and RabbitMQ cut and frozen in mid-load: nothing lost, nothing twice, and soon at work again.

RabbitMQ delivers everything again that a lost connection held. One worker alone gets all of it back: what runs there
is joined with its run, and what ran is not run again (B6).
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from project import Project, Worker, wait_until
from proxy import Proxy

from qcore import App
from qcore.errors import OperationalError

BACK_SECONDS = 15.0
"""Until it consumes again after a freeze has ended."""
NOTICED_SECONDS = 15.0
"""Until a connection that carries nothing is given up."""
PUBLISH_SECONDS = 5.0
"""The default of `broker_publish_timeout`."""
Where = Callable[..., AbstractContextManager[tuple[Project, Proxy]]]


@pytest.fixture
def through_proxy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Where:
    """`with through_proxy("redis" | "amqp", broker=True, store=True) as (project, proxy)`: the worker sees the broker,
    and Redis as its store, by way of the proxy. With "amqp" the store has no way but its own.
    """
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def make(kind: str, broker: bool = True, store: bool = False) -> Iterator[tuple[Project, Proxy]]:
        backend_url = request.getfixturevalue("redis_url")
        broker_url = request.getfixturevalue(f"{kind}_url")
        url = urlsplit(broker_url)
        with Proxy(url.hostname or "127.0.0.1", url.port or 0) as proxy:
            host = f"127.0.0.1:{proxy.port}"
            bad = url._replace(netloc=url.netloc.replace(f"{url.hostname}:{url.port}", host)).geturl()
            project = Project(tmp_path, broker_url, backend_url, lease=30.0)
            # Only the worker takes the bad way, so that the test itself can look and send at any moment.
            project.environment["LAB_BROKER"] = bad if broker else broker_url
            project.environment["LAB_BACKEND"] = bad if store else backend_url
            try:
                yield project, proxy
            finally:
                proxy.thaw()
                project.close()

    return make


def load(project: Project, count: int) -> None:
    late = project.task("late")
    with project.app.bulk():
        for number in range(count):
            late.delay(number, seconds=0.01)


def check(project: Project, worker: Worker, count: int) -> None:
    project.wait_for_effects(count)
    worker.wait_idle()
    assert sorted(project.effects()) == list(range(count))
    assert worker.process.poll() is None


def cut(project: Project, proxy: Proxy, count: int, cuts: int) -> None:
    worker = project.start_worker().wait_ready()
    load(project, count)
    for part in range(1, cuts + 1):
        project.wait_for_effects(part * count // (cuts + 2))
        proxy.cut()
    check(project, worker, count)


def freeze(project: Project, proxy: Proxy, count: int, freezes: int, seconds: list[float]) -> None:
    worker = project.start_worker().wait_ready()
    load(project, count)
    slowest = 0.0
    for part in range(1, freezes + 1):
        project.wait_for_effects(part * count // (freezes + 2))
        proxy.freeze()
        time.sleep(random.choice(seconds))  # the length of the freeze is what is tested
        before = len(project.effects())
        proxy.thaw()
        thawed = time.monotonic()
        # More than it can have held: so it has fetched, and so is consuming again.
        wait_until(
            lambda before=before: len(project.effects()) > min(before + 40, count - 1), "work", BACK_SECONDS
        )
        slowest = max(slowest, time.monotonic() - thawed)
    check(project, worker, count)
    print(f"slowest return {slowest:.1f} s")


WAYS = [("redis", True, True), ("redis", False, True), ("amqp", True, False)]
"""Broker, whether it is reached through the proxy, and whether the store is."""
NAMES = ["redis", "redis as store", "amqp"]


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_connections_are_cut(through_proxy: Where, way: tuple[str, bool, bool]) -> None:
    with through_proxy(*way) as (project, proxy):
        cut(project, proxy, count=400, cuts=5)


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_connections_freeze(through_proxy: Where, kind: str) -> None:
    with through_proxy(kind, store=kind == "redis") as (project, proxy):
        freeze(project, proxy, count=600, freezes=2, seconds=[1.0])


def test_a_connection_to_rabbitmq_that_carries_nothing_is_given_up(through_proxy: Where) -> None:
    """What runs meanwhile is not run a second time when its message comes again."""
    with through_proxy("amqp") as (project, proxy):
        worker = project.start_worker().wait_ready()
        project.task("late_hold").delay(1, 14.0)
        project.wait_for_effects(1)
        proxy.abandon()
        forgotten = time.monotonic()
        project.task("late").delay(2)
        wait_until(lambda: "The connection to the broker was lost" in worker.log, "its end", NOTICED_SECONDS)
        noticed = time.monotonic()
        project.wait_for_effects(2, timeout=BACK_SECONDS)
        print(f"noticed after {noticed - forgotten:.1f} s, at work {time.monotonic() - noticed:.1f} s later")
        worker.wait_idle()
        assert sorted(project.effects()) == [1, 2]
        assert "it is not run twice" in worker.log


def test_publishing_goes_on_when_idle_connections_were_forgotten(through_proxy: Where) -> None:
    """A router has dropped the connection of a program that was quiet for a while: the next call works, once."""
    with through_proxy("amqp") as (project, proxy):
        url = project.environment["LAB_BROKER"]
        app = App("lab", broker=url, set_as_current=False)
        app.conf.update(
            task_default_queue=project.queue, broker_transport_options={"idle_check_seconds": 0.2}
        )
        app.send_task("lab.early", (0,))
        proxy.abandon()
        time.sleep(0.3)  # the silence that is tested
        app.send_task("lab.early", (1,))
        app.close()
        assert sorted(taken(project)) == [0, 1]


def test_publishing_while_connections_are_cut(through_proxy: Where) -> None:
    publish_through_cuts(through_proxy, calls=400, every_seconds=0.2)


@pytest.mark.soak
def test_publishing_while_connections_are_cut_often(through_proxy: Where) -> None:
    publish_through_cuts(through_proxy, calls=20_000, every_seconds=0.1)


def publish_through_cuts(through_proxy: Where, calls: int, every_seconds: float) -> None:
    """Each call that returned has put its message into the queue, and none took longer than it may."""
    with through_proxy("amqp") as (project, proxy):
        app = App("lab", broker=project.environment["LAB_BROKER"], set_as_current=False)
        app.conf.update(task_default_queue=project.queue)
        app.send_task("lab.early", (0,))
        over = threading.Event()
        cuts = 0

        def cutting() -> None:
            nonlocal cuts
            while not over.wait(every_seconds * random.uniform(0.5, 1.5)):
                proxy.cut()
                cuts += 1

        cutter = threading.Thread(target=cutting)
        cutter.start()
        returned, failed, slowest = {0}, 0, 0.0
        for number in range(1, calls):
            began = time.monotonic()
            try:
                app.send_task("lab.early", (number,))
            except OperationalError:
                failed += 1
            else:
                returned.add(number)
            slowest = max(slowest, time.monotonic() - began)
        while not cuts:
            time.sleep(0.01)
        over.set()
        cutter.join()
        app.close()
        queued = taken(project)
        print(
            f"{cuts} cuts: {len(returned)} calls returned, {failed} failed, {len(queued)} messages; "
            f"the slowest took {slowest:.2f} s"
        )
        assert returned <= set(queued)
        assert len(queued) - len(set(queued)) <= cuts
        assert slowest < PUBLISH_SECONDS + 1


def taken(project: Project) -> list[int]:
    """The first arguments of the tasks in the queue, which is empty then."""
    numbers = []
    with project.app.connection_for_read() as connection:
        queue = project.app.amqp.queues[project.queue](connection.channel())
        while (message := queue.get(no_ack=True)) is not None:
            numbers.append(json.loads(message.body)[0][0])
    return numbers


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_connections_are_cut_often(through_proxy: Where, way: tuple[str, bool, bool]) -> None:
    with through_proxy(*way) as (project, proxy):
        cut(project, proxy, count=4000, cuts=20)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_connections_freeze_long(through_proxy: Where, way: tuple[str, bool, bool]) -> None:
    """Shorter and longer than the 8 s after which a silent connection counts as dead."""
    with through_proxy(*way) as (project, proxy):
        freeze(project, proxy, count=6000, freezes=20, seconds=[0.5, 3.0, 12.0])
