"""The road of a task through an embedded worker: acknowledgement, limits, events, revocation."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest
from kombu import Exchange, Queue
from worker_helpers import connected, make_app, publish_raw, queue_size, wait_until

from qcore import App, trace
from qcore.errors import Ignore, Reject, TaskRevokedError
from qcore.signals import task_received, task_revoked
from qworker.request import Request
from qworker.state import RESERVED
from qworker.testing import start_worker


@pytest.fixture
def app() -> App:
    return make_app()


def test_result_comes_back(app: App) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with start_worker(app):
        assert [add.delay(n, n).get(timeout=10) for n in range(20)] == [2 * n for n in range(20)]
    assert queue_size(app) == 0


@pytest.mark.parametrize("pool", ["solo", "threads", "asyncio"])
def test_every_pool_runs_plain_functions_and_coroutines(app: App, pool: str) -> None:
    @app.task
    def plain() -> str:
        return "plain"

    @app.task
    async def coroutine() -> str:
        return "coroutine"

    with start_worker(app, pool=pool, concurrency=2):
        assert plain.delay().get(timeout=10) == "plain"
        assert coroutine.delay().get(timeout=10) == "coroutine"


def test_early_task_is_acknowledged_when_it_starts(app: App) -> None:
    release = threading.Event()

    @app.task
    def wait() -> None:
        release.wait(10)

    with start_worker(app, pool="threads") as worker:
        result = wait.delay()
        request = wait_until(lambda: worker.active_requests)[0]
        assert request.acknowledged
        release.set()
        result.get(timeout=10)


def test_late_task_is_acknowledged_when_it_ends(app: App) -> None:
    release = threading.Event()

    @app.task(acks_late=True)
    def wait() -> None:
        release.wait(10)

    with start_worker(app, pool="threads") as worker:
        result = wait.delay()
        request = wait_until(lambda: worker.active_requests)[0]
        assert not request.acknowledged
        release.set()
        result.get(timeout=10)
        wait_until(lambda: request.acknowledged, "the acknowledgement")


def test_failed_late_task_is_rejected_when_the_task_says_so(app: App) -> None:
    @app.task(acks_late=True, acks_on_failure=False)
    def fail() -> None:
        raise ValueError("no")

    seen: list[Request] = []
    with (
        start_worker(app),
        connected(task_received, lambda request, **kwargs: seen.append(request)),
    ):
        with pytest.raises(ValueError, match="no"):
            fail.delay().get(timeout=10)
        wait_until(lambda: seen and seen[0].acknowledged, "the rejection")
        assert seen[0].message._state == "REJECTED"


def test_reject_with_requeue_brings_the_message_again(app: App) -> None:
    tries: list[int] = []

    @app.task(acks_late=True)
    def once_more() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise Reject("not yet", requeue=True)
        return "done"

    with start_worker(app):
        assert once_more.delay().get(timeout=10) == "done"
    assert len(tries) == 2


def test_ignored_task_is_logged_and_acknowledged(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task
    def ignored() -> None:
        raise Ignore

    with caplog.at_level(logging.INFO), start_worker(app):
        result = ignored.delay()
        wait_until(lambda: f"{result.id}] ignored" in caplog.text, "the log line")
    assert queue_size(app) == 0


def test_retry_is_run_again_and_logged(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(bind=True, default_retry_delay=0)
    def flaky(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(exc=ValueError("again"))
        return int(self.request.retries)

    with caplog.at_level(logging.INFO), start_worker(app):
        assert flaky.delay().get(timeout=10) == 2
    assert "retry: " in caplog.text


def test_countdown_holds_the_task_and_shows_it_as_scheduled() -> None:
    app = make_app(worker_prefetch_adaptive=False)

    @app.task
    def now() -> float:
        return time.time()

    with start_worker(app) as worker:
        sent = time.time()
        result = now.apply_async(countdown=0.6)
        wait_until(lambda: worker.state.scheduled, "the scheduled request")
        assert worker.consumer is not None
        assert worker.consumer.qos.value == 5
        assert result.get(timeout=10) - sent >= 0.6
        wait_until(lambda: worker.consumer and worker.consumer.qos.value == 4, "the former prefetch count")


def test_task_with_an_eta_can_be_revoked_while_it_waits(app: App) -> None:
    @app.task
    def never() -> None:
        raise AssertionError("it must not run")

    revoked: list[dict[str, Any]] = []
    with start_worker(app) as worker, connected(task_revoked, lambda **kwargs: revoked.append(kwargs)):
        result = never.apply_async(countdown=600)
        wait_until(lambda: worker.state.scheduled, "the scheduled request")
        app.control.revoke(result.id)
        with pytest.raises(TaskRevokedError, match="revoked"):
            result.get(timeout=10)
    assert [(entry["terminated"], entry["expired"]) for entry in revoked] == [(False, False)]


def test_reserved_task_can_be_revoked_before_it_starts(app: App) -> None:
    release = threading.Event()
    ran: list[str] = []

    @app.task(name="t.wait")
    def wait() -> None:
        release.wait(10)

    @app.task(name="t.mark")
    def mark() -> None:
        ran.append("x")

    with start_worker(app, pool="threads", concurrency=1) as worker:
        first = wait.delay()
        second = mark.delay()
        wait_until(lambda: [r for r in worker.state.reserved if r.id == second.id], "the reserved request")
        app.control.revoke(second.id)
        with pytest.raises(TaskRevokedError):
            second.get(timeout=10)
        release.set()
        first.get(timeout=10)
    assert ran == []


def test_revoked_id_is_not_run_when_its_message_comes_later(app: App) -> None:
    @app.task(name="t.never")
    def never() -> None:
        raise AssertionError("it must not run")

    with start_worker(app) as worker:
        worker.state.revoked.add("an-id")
        result = never.apply_async(task_id="an-id")
        with pytest.raises(TaskRevokedError):
            result.get(timeout=10)


def test_revoked_stamp_stops_tasks_that_carry_it(app: App) -> None:
    @app.task(name="t.never")
    def never() -> None:
        raise AssertionError("it must not run")

    with start_worker(app) as worker:
        reply = app.control.revoke_by_stamped_headers({"customer": "x"}, reply=True, timeout=2, limit=1)
        assert worker.state.revoked_stamps == {"customer": {"x"}}
        assert "flagged as revoked" in str(reply)
        headers = {"task": "t.never", "id": "stamped", "stamped_headers": ["customer"]}
        publish_raw(app, [[], {}, {}], {**headers, "stamps": {"customer": ["y", "x"]}})
        with pytest.raises(TaskRevokedError):
            app.AsyncResult("stamped").get(timeout=10)


def test_rate_limit_spreads_the_starts(app: App) -> None:
    @app.task(rate_limit="5/s")
    def limited() -> float:
        return time.monotonic()

    @app.task
    def free() -> float:
        return time.monotonic()

    with start_worker(app):
        begun = time.monotonic()
        results = [limited.delay() for _ in range(4)]
        other = free.delay()
        assert other.get(timeout=10) - begun < 0.5
        times = sorted(result.get(timeout=10) for result in results)
    assert times[-1] - times[0] == pytest.approx(0.6, abs=0.3)


def test_disabled_rate_limits_are_not_obeyed() -> None:
    app = make_app(worker_disable_rate_limits=True)

    @app.task(rate_limit="1/m")
    def limited() -> float:
        return time.monotonic()

    with start_worker(app):
        times = [limited.delay().get(timeout=10) for _ in range(3)]
    assert times[-1] - times[0] < 5


class Recorded(Request):
    """A request class of the user's."""

    ended: list[str] = []

    def on_success(self, outcome: Any) -> None:
        self.ended.append(outcome.summary)
        super().on_success(outcome)


def test_request_class_of_the_task_is_used(app: App) -> None:
    @app.task(Request=Recorded)
    def seven() -> int:
        return 7

    with start_worker(app):
        assert seven.delay().get(timeout=10) == 7
    assert Recorded.ended == ["7"]


def test_log_lines_can_be_replaced(
    app: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "LOG_SUCCESS", "This is a custom message")

    @app.task
    def seven() -> int:
        return 7

    with caplog.at_level(logging.INFO), start_worker(app):
        seven.delay().get(timeout=10)
        wait_until(lambda: "This is a custom message" in caplog.text, "the log line")


def test_log_lines_have_the_documented_form(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="t.fail")
    def fail() -> None:
        raise KeyError("gone")

    with caplog.at_level(logging.INFO), start_worker(app):
        result = fail.delay()
        with pytest.raises(KeyError):
            result.get(timeout=10)
        wait_until(lambda: "raised unexpected" in caplog.text, "the log line")
    assert f"Task t.fail[{result.id}] received" in caplog.text
    assert f"Task t.fail[{result.id}] raised unexpected: KeyError('gone')" in caplog.text
    assert "Traceback (most recent call last)" in caplog.text


def test_expected_exceptions_are_logged_quietly(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="t.fail", throws=(KeyError,))
    def fail() -> None:
        raise KeyError("gone")

    with caplog.at_level(logging.INFO), start_worker(app):
        with pytest.raises(KeyError):
            fail.delay().get(timeout=10)
        wait_until(lambda: "raised expected" in caplog.text, "the log line")
    assert "Traceback" not in caplog.text


def test_task_events_follow_the_life_of_the_task(app: App) -> None:
    @app.task(name="t.seven")
    def seven() -> int:
        return 7

    events: list[dict[str, Any]] = []

    def listen() -> None:
        queue = Queue("", Exchange("celeryev", type="topic"), routing_key="#", auto_delete=True)
        with (
            app.connection_for_read() as connection,
            connection.Consumer(
                queue, callbacks=[lambda body, _: events.extend(body if isinstance(body, list) else [body])]
            ),
        ):
            listening.set()
            while not stop.is_set():
                try:
                    connection.drain_events(timeout=0)
                except TimeoutError:
                    stop.wait(0.01)

    listening = threading.Event()
    stop = threading.Event()
    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(5)
    try:
        with start_worker(app, task_events=True, without_heartbeat=False, heartbeat_interval=0.1):
            result = seven.delay()
            result.get(timeout=10)
            wait_until(lambda: [e for e in events if e["type"] == "task-succeeded"], "task-succeeded")
            wait_until(lambda: [e for e in events if e["type"] == "worker-heartbeat"], "a heartbeat")
        wait_until(lambda: [e for e in events if e["type"] == "worker-offline"], "worker-offline")
    finally:
        stop.set()
        thread.join(5)
    mine = [event["type"] for event in events if event.get("uuid") == result.id]
    assert mine == ["task-received", "task-started", "task-succeeded"]
    received = next(event for event in events if event["type"] == "task-received")
    assert (received["name"], received["args"], received["retries"]) == ("t.seven", "()", 0)
    online = [event for event in events if event["type"].startswith("worker-")]
    assert {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"} <= set(online[-1])


def test_memory_of_the_worker_is_empty_after_the_tasks(app: App) -> None:
    @app.task(rate_limit="1000/s")
    def seven() -> int:
        return 7

    with start_worker(app, pool="threads", concurrency=3) as worker:
        for result in [seven.delay() for _ in range(50)]:
            result.get(timeout=10)
        wait_until(lambda: not worker.state.by_tag, "the empty books")
        assert worker.state.requests == {}
        assert worker.state.total == {seven.name: 50}
        assert [r for r in worker.state if r.phase is RESERVED] == []
