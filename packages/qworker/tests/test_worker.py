"""Options of the worker, its facts, and its embedded forms."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from worker_helpers import connected, make_app, wait_until

from qcore import App, signals
from qcore.errors import ImproperlyConfigured
from qworker.cpus import available_cpus
from qworker.testing import EmbeddedWorkerError, start_worker
from qworker.worker import WorkController, _autoscale, _concurrency


@pytest.fixture
def app() -> App:
    return make_app()


def made(app: App, **options: Any) -> WorkController:
    """A worker that is not started."""
    worker = WorkController(app, **{"pool": "solo", "concurrency": 1, **options})
    worker.wakeup.close()
    worker.hub.close()
    worker.pool.close()
    worker.pool.join(1)
    return worker


@pytest.mark.parametrize(
    ("value", "bounds"),
    [(None, None), ("10,3", (10, 3)), ("3,10", (10, 3)), ("5", (5, 0)), ((2, 4), (4, 2))],
)
def test_autoscale_takes_the_bounds_in_any_order(value: Any, bounds: Any) -> None:
    assert _autoscale(value) == bounds


@pytest.mark.parametrize("value", ["a,b", "1,2,3", "-1", ""])
def test_autoscale_refuses_what_is_no_pair(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="max,min"):
        _autoscale(value)


def test_concurrency_defaults_to_the_processors() -> None:
    assert _concurrency(None) == os.cpu_count()
    assert _concurrency("3") == 3
    assert 1 <= _concurrency("auto") <= (os.cpu_count() or 1)


@pytest.mark.parametrize("value", ["many", -1])
def test_concurrency_refuses_nonsense(value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="concurrency"):
        _concurrency(value)


@pytest.mark.parametrize(
    ("content", "most"), [("50000 100000", 1), ("150000 100000", 2), ("max 100000", 4096)]
)
def test_processors_are_limited_by_the_cgroup(tmp_path: Path, content: str, most: int) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert available_cpus(tmp_path) == min(most, len(os.sched_getaffinity(0)))


def test_node_name_is_expanded(app: App) -> None:
    assert made(app, hostname="w1@example.com").hostname == "w1@example.com"
    assert made(app).hostname.startswith("q@")


def test_unknown_pool_is_refused_with_the_known_ones(app: App) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"no pool called 'fast'.*prefork.*threads"):
        WorkController(app, pool="fast")


def test_limit_that_the_pool_cannot_keep_is_refused(app: App) -> None:
    with pytest.raises(ImproperlyConfigured, match="solo pool cannot keep a hard time limit"):
        WorkController(app, pool="solo", time_limit=5)


def test_embedded_beat_is_made_when_it_is_asked_for(app: App) -> None:
    pytest.importorskip("qbeat")
    assert made(app, beat=True).beat_service is not None


def test_queues_are_selected(app: App) -> None:
    made(app, queues="a,b", exclude_queues=["b"])
    assert list(app.amqp.queues.consume_from) == ["a"]


def test_worker_has_a_queue_of_its_own() -> None:
    app = make_app(worker_direct=True)
    made(app, hostname="w1@example.com")
    assert "w1@example.com.dq2" in app.amqp.queues.consume_from


def test_first_signal_can_change_the_configuration(app: App) -> None:
    def configure(sender: str, conf: Any, options: Any, **kwargs: Any) -> None:
        assert sender == "w1@x"
        assert options["concurrency"] == 1
        conf.worker_prefetch_multiplier = 7

    with connected(signals.worker_setup_init, configure):
        assert made(app, hostname="w1@x").prefetch_multiplier == 7


def test_second_signal_can_add_queues(app: App) -> None:
    def add(sender: str, instance: Any, **kwargs: Any) -> None:
        instance.app.amqp.queues.select_add(f"{sender}.dq")

    with connected(signals.worker_after_setup, add):
        made(app, hostname="w1@x", queues="a")
    assert list(app.amqp.queues.consume_from) == ["a", "w1@x.dq"]


def test_signals_of_a_worker_come_in_order(app: App) -> None:
    seen: list[str] = []
    names = ["worker_setup_init", "worker_after_setup", "worker_init", "worker_ready", "worker_shutdown"]
    receivers = {name: (lambda name=name, **kwargs: seen.append(name)) for name in names}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    try:
        with start_worker(app):
            wait_until(lambda: "worker_ready" in seen, "readiness")
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)
    assert seen == names


def test_banner_holds_what_the_screen_shows(app: App) -> None:
    @app.task(name="t.add")
    def add() -> None: ...

    banner = made(app, hostname="w1@x", task_events=True).banner()
    assert (banner.hostname, banner.concurrency, banner.events) == ("w1@x", "1 (solo)", True)
    assert banner.tasks == ("t.add",)
    assert app.conf.task_default_queue in banner.queues
    assert banner.notice is None


def test_banner_tells_of_the_embedded_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("Q_BROKER_URL", raising=False)
    banner = made(App("embedded", set_as_current=False)).banner()
    assert banner.notice is not None
    assert ".q/" in banner.notice


def test_autoscaler_grows_with_the_load_and_shrinks_when_it_is_gone() -> None:
    app = make_app()
    release = threading.Event()

    @app.task
    def wait() -> None:
        release.wait(10)

    with start_worker(app, pool="threads", autoscale=(4, 1)) as worker:
        assert worker.pool.num_processes == 1
        worker.autoscaler.keepalive = 0.0
        results = [wait.delay() for _ in range(10)]
        wait_until(lambda: worker.pool.num_processes == 4, "the full pool")
        assert worker.stats()["autoscaler"]["max"] == 4
        release.set()
        for result in results:
            result.get(timeout=10)
        wait_until(lambda: worker.pool.num_processes == 1, "the small pool")


def test_embedded_worker_that_cannot_start_says_why() -> None:
    app = App("bad", broker="nosuch://", backend="cache+memory://", set_as_current=False)
    with pytest.raises(EmbeddedWorkerError, match="could not start"), start_worker(app):
        pass


def test_embedded_worker_that_does_not_stop_names_the_task(app: App) -> None:
    release = threading.Event()

    @app.task(name="t.stuck")
    def stuck() -> None:
        release.wait(10)

    def run() -> None:
        with start_worker(app, pool="threads", shutdown_timeout=0.2) as worker:
            stuck.delay()
            wait_until(lambda: worker.active_requests, "the task")

    timer = threading.Timer(1.0, release.set)
    timer.start()
    with pytest.raises(EmbeddedWorkerError, match=r"runs t\.stuck\["):
        run()
    timer.join()
