"""Remote commands: replies, selection, and what they change (acceptance lists 4CTL, RC, RV, SS, OW)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from worker_helpers import make_app, wait_until

from qcore import App
from qworker.remote import ControlState, control_command, inspect_command, panel
from qworker.testing import ThreadWorker, start_worker


@pytest.fixture
def app() -> App:
    app = make_app(worker_prefetch_adaptive=False)

    @app.task(name="t.add")
    def add(x: int, y: int) -> int:
        return x + y

    return app


@pytest.fixture
def worker(app: App) -> Iterator[ThreadWorker]:
    with start_worker(app, pool="threads", concurrency=2, hostname="w1@example.com") as worker:
        yield worker


def ask(app: App, command: str, **arguments: Any) -> Any:
    """The reply of the one worker."""
    replies = app.control.broadcast(command, arguments, reply=True, timeout=5, limit=1)
    assert replies is not None
    assert list(replies[0]) == ["w1@example.com"]
    return replies[0]["w1@example.com"]


@pytest.mark.parametrize(
    ("command", "arguments", "reply"),
    [
        ("ping", {}, {"ok": "pong"}),
        ("revoked", {}, []),
        ("active", {}, []),
        ("reserved", {}, []),
        ("scheduled", {}, []),
        ("dump_active", {}, []),
        ("query_task", {"ids": ["nobody"]}, {}),
        ("query_task", {"ids": "nobody"}, {}),
        ("registered", {}, ["t.add"]),
        ("registered", {"taskinfoitems": ["acks_late"]}, ["t.add [acks_late=False]"]),
        (
            "rate_limit",
            {"task_name": "t.add", "rate_limit": "10/m"},
            {"ok": "new rate limit set successfully"},
        ),
        ("rate_limit", {"task_name": "t.add", "rate_limit": ""}, {"ok": "rate limit disabled successfully"}),
        ("rate_limit", {"task_name": "t.none", "rate_limit": "10/m"}, {"error": "unknown task"}),
        ("time_limit", {"task_name": "t.add", "hard": 9, "soft": 5}, {"ok": "time limits set successfully"}),
        ("time_limit", {"task_name": "t.none", "hard": 9}, {"error": "unknown task"}),
        ("add_consumer", {"queue": "extra"}, {"ok": "add consumer extra"}),
        ("cancel_consumer", {"queue": "extra"}, {"ok": "no longer consuming from extra"}),
        ("pool_grow", {"n": 1}, {"ok": "pool will grow"}),
        ("revoke", {"task_id": "a"}, {"ok": "tasks {'a'} flagged as revoked"}),
        ("revoke", {"task_id": ["a"], "terminate": True}, {"ok": "terminate: tasks unknown"}),
        ("terminate", {"task_id": "a", "signal": "KILL"}, {"ok": "terminate: tasks unknown"}),
        ("hello", {"from_node": "w1@example.com"}, None),
        ("heartbeat", {}, None),
        ("nonsense", {}, {"error": "KeyError('nonsense')"}),
    ],
)
def test_reply(app: App, worker: ThreadWorker, command: str, arguments: dict[str, Any], reply: Any) -> None:
    assert ask(app, command, **arguments) == reply


def test_invalid_rate_limit_is_refused(app: App, worker: ThreadWorker) -> None:
    reply = ask(app, "rate_limit", task_name="t.add", rate_limit="fast")
    assert reply["error"].startswith("Invalid rate limit string: ")


@pytest.mark.parametrize(("command", "arguments"), [("autoscale", {"max": 3}), ("pool_restart", {})])
def test_what_is_switched_off_is_an_error(
    app: App, worker: ThreadWorker, command: str, arguments: dict[str, Any]
) -> None:
    assert ask(app, command, **arguments)["error"].startswith("ValueError(")


def test_only_the_destination_answers(app: App, worker: ThreadWorker) -> None:
    assert app.control.ping(["other@example.com"], timeout=0.2) in ([], None)
    assert app.control.ping(["w1@example.com"], timeout=5) == [{"w1@example.com": {"ok": "pong"}}]


def test_only_nodes_that_match_the_pattern_answer(app: App, worker: ThreadWorker) -> None:
    assert not app.control.broadcast("ping", reply=True, timeout=0.2, pattern="x*", matcher="glob")
    assert app.control.broadcast("ping", reply=True, timeout=5, limit=1, pattern="w?@*", matcher="glob")


def test_time_limit_reaches_the_next_request(app: App, worker: ThreadWorker) -> None:
    ask(app, "time_limit", task_name="t.add", hard=9, soft=5)
    assert worker.consumer is not None
    assert worker.consumer.strategies["t.add"].limits == (9, 5)


def test_rate_limit_makes_a_bucket(app: App, worker: ThreadWorker) -> None:
    ask(app, "rate_limit", task_name="t.add", rate_limit="10/m")
    assert worker.consumer is not None
    assert worker.consumer.task_buckets["t.add"].fill_rate == pytest.approx(10 / 60)
    assert worker.consumer.task_buckets["no.such.task"] is None


def test_added_queue_is_consumed_until_it_is_cancelled(app: App, worker: ThreadWorker) -> None:
    ask(app, "add_consumer", queue="extra")
    assert app.send_task("t.add", (1, 2), queue="extra").get(timeout=10) == 3
    names = [queue["name"] for queue in ask(app, "active_queues")]
    assert names == [app.conf.task_default_queue, "extra"]
    ask(app, "cancel_consumer", queue="extra")
    assert [queue["name"] for queue in ask(app, "active_queues")] == [app.conf.task_default_queue]


def test_adding_a_queue_twice_is_harmless(app: App, worker: ThreadWorker) -> None:
    ask(app, "add_consumer", queue="extra")
    ask(app, "add_consumer", queue="extra")
    assert len(ask(app, "active_queues")) == 2


def test_queue_with_exchange_and_options(app: App, worker: ThreadWorker) -> None:
    ask(
        app, "add_consumer", queue="baz", exchange="ex", exchange_type="topic", routing_key="media.*",
        options={"queue_durable": False, "exchange_durable": False},
    )  # fmt: skip
    queue = ask(app, "active_queues")[-1]
    assert (queue["exchange"]["name"], queue["exchange"]["type"]) == ("ex", "topic")
    assert (queue["routing_key"], queue["durable"]) == ("media.*", False)


def test_active_and_reserved_show_the_requests(app: App, worker: ThreadWorker) -> None:
    release = threading.Event()

    @app.task(name="t.wait")
    def wait(n: int) -> None:
        release.wait(10)

    results = [wait.delay(n) for n in range(3)]
    wait_until(lambda: len(worker.state.active) == 2 and worker.state.reserved, "two active, one reserved")
    active, reserved = ask(app, "active"), ask(app, "reserved")
    assert sorted(info["args"] for info in active) == [[0], [1]]
    assert [info["args"] for info in reserved] == [[2]]
    assert set(active[0]) == {
        "id", "name", "args", "kwargs", "type", "hostname", "time_start", "acknowledged", "delivery_info",
        "worker_pid",
    }  # fmt: skip
    assert ask(app, "active", safe=True)[0]["args"] in ("(0,)", "(1,)")
    known = ask(app, "query_task", ids=[result.id for result in results])
    assert sorted(state for state, _ in known.values()) == ["active", "active", "reserved"]
    release.set()
    for result in results:
        result.get(timeout=10)


def test_stats_have_every_documented_field(app: App, worker: ThreadWorker) -> None:
    app.send_task("t.add", (1, 1)).get(timeout=10)
    stats = ask(app, "stats")
    assert stats["total"] == {"t.add": 1}
    assert isinstance(stats["clock"], str)
    assert {"pid", "uptime", "prefetch_count"} <= set(stats)
    assert {
        "connect_timeout", "heartbeat", "hostname", "insist", "login_method", "port", "ssl", "transport",
        "transport_options", "uri_prefix", "userid", "virtual_host", "alternates", "failover_strategy",
    } <= set(stats["broker"])  # fmt: skip
    assert "password" not in stats["broker"]
    assert {
        "max-concurrency",
        "max-tasks-per-child",
        "processes",
        "put-guarded-by-semaphore",
        "timeouts",
    } <= set(stats["pool"])
    assert {"stime", "utime", "maxrss", "nvcsw", "nivcsw", "nswap", "oublock", "inblock"} <= set(
        stats["rusage"]
    )


def test_conf_is_censored(app: App, worker: ThreadWorker) -> None:
    app.conf.redis_password = "geheim"  # type: ignore[attr-defined]
    assert "geheim" not in str(ask(app, "conf", with_defaults=True))


def test_report_names_the_software(app: App, worker: ThreadWorker) -> None:
    assert "qworker:" in ask(app, "report")["ok"]


def test_hello_exchanges_revoked_ids(app: App, worker: ThreadWorker) -> None:
    worker.state.revoked.add("mine")
    reply = ask(app, "hello", from_node="w2@example.com", revoked=["theirs"])
    assert set(reply["revoked"]) == {"mine", "theirs"}
    assert reply["clock"] > 0


def test_events_are_switched(app: App) -> None:
    with start_worker(app, hostname="w1@example.com", without_heartbeat=False) as worker:
        assert worker.consumer is not None
        assert worker.consumer.send_task_event is None
        assert ask(app, "enable_events") == {"ok": "task events enabled"}
        assert ask(app, "enable_events") == {"ok": "task events already enabled"}
        assert worker.consumer.send_task_event is not None
        assert ask(app, "disable_events") == {"ok": "task events disabled"}
        assert ask(app, "disable_events") == {"ok": "task events already disabled"}


def test_pool_can_be_resized_and_prefetch_follows(app: App) -> None:
    with start_worker(app, pool="threads", concurrency=2, hostname="w1@example.com") as worker:
        ask(app, "pool_grow", n=2)
        assert worker.pool.num_processes == 4
        assert worker.consumer is not None
        assert worker.consumer.qos.value == 16
        ask(app, "pool_shrink", n=3)
        assert worker.consumer.qos.value == 4


def test_shutdown_command_stops_the_worker(app: App) -> None:
    with start_worker(app) as worker:
        app.control.shutdown()
        assert worker.thread is not None
        worker.thread.join(10)
        assert not worker.thread.is_alive()
        assert worker.exitcode == 0


def test_own_commands_are_called(app: App, worker: ThreadWorker) -> None:
    @control_command(args=[("n", int)], signature="[N=1]")
    def increase_prefetch_count(state: ControlState, n: int = 1) -> Any:
        state.consumer.qos.increment_eventually(n)
        return {"ok": "prefetch count incremented"}

    @inspect_command
    def current_prefetch_count(state: ControlState) -> Any:
        return {"prefetch_count": state.consumer.qos.value}

    assert ask(app, "increase_prefetch_count", n=3) == {"ok": "prefetch count incremented"}
    assert ask(app, "current_prefetch_count") == {"prefetch_count": 11}
    assert panel.commands["increase_prefetch_count"].args == [("n", int)]


def test_panel_lists_visible_commands_of_each_type() -> None:
    inspect = [command.name for command in panel.of_type("inspect")]
    control = [command.name for command in panel.of_type("control")]
    assert {"ping", "stats", "active", "registered"} <= set(inspect)
    assert "hello" not in inspect
    assert {"revoke", "shutdown", "add_consumer", "autoscale"} <= set(control)


def test_a_stranger_message_does_no_harm(app: App, worker: ThreadWorker) -> None:
    with app.connection_for_write() as connection:
        exchange = app.control.mailbox.exchange
        for body in ({"no": "method"}, "text", {"method": "ping", "arguments": {"x": 1}, "reply_to": None}):
            connection.Producer().publish(body, exchange=exchange, routing_key="", declare=[exchange])
    assert ask(app, "ping") == {"ok": "pong"}
