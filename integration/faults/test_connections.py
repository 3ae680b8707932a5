"""Connections of a worker to Redis cut and frozen in mid-load: nothing lost, nothing twice, and soon at work again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from project import Project, Worker, wait_until
from proxy import Proxy

BACK_SECONDS = 15.0
"""Until it consumes again after a freeze has ended."""
Where = Callable[..., AbstractContextManager[tuple[Project, Proxy]]]


@pytest.fixture
def through_proxy(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Where:
    """`with through_proxy(broker=True, store=True) as (project, proxy)`: the worker sees Redis by way of the proxy."""
    monkeypatch.chdir(tmp_path)
    url = urlsplit(redis_url)

    @contextmanager
    def make(broker: bool, store: bool) -> Iterator[tuple[Project, Proxy]]:
        with Proxy(url.hostname or "127.0.0.1", url.port or 0) as proxy:
            bad = url._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
            project = Project(tmp_path, redis_url, redis_url, lease=30.0)
            # Only the worker takes the bad way, so that the test itself can look and send at any moment.
            project.environment["LAB_BROKER"] = bad if broker else redis_url
            project.environment["LAB_BACKEND"] = bad if store else redis_url
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


def test_connections_are_cut(through_proxy: Where) -> None:
    with through_proxy(broker=True, store=True) as (project, proxy):
        cut(project, proxy, count=400, cuts=5)


def test_connections_freeze(through_proxy: Where) -> None:
    with through_proxy(broker=True, store=True) as (project, proxy):
        freeze(project, proxy, count=600, freezes=2, seconds=[1.0])


def test_the_result_store_is_cut_off(through_proxy: Where) -> None:
    with through_proxy(broker=False, store=True) as (project, proxy):
        cut(project, proxy, count=400, cuts=5)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("broker", [True, False], ids=["both", "store"])
def test_connections_are_cut_often(through_proxy: Where, broker: bool) -> None:
    with through_proxy(broker=broker, store=True) as (project, proxy):
        cut(project, proxy, count=4000, cuts=20)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("broker", [True, False], ids=["both", "store"])
def test_connections_freeze_long(through_proxy: Where, broker: bool) -> None:
    """Shorter and longer than the 8 s after which a silent connection counts as dead."""
    with through_proxy(broker=broker, store=True) as (project, proxy):
        freeze(project, proxy, count=6000, freezes=20, seconds=[0.5, 3.0, 12.0])
