"""Commands over a real in-memory broker, served by real mailbox nodes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection, Exchange, Producer, Queue

from qcore.errors import DuplicateNodenameWarning, ImproperlyConfigured, OperationalError

Serve = Callable[..., Any]
LONG = 15.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        threading.Event().wait(0.01)


def test_ping_lists_every_node(app: Any, serve: Serve) -> None:
    serve("a@x")
    serve("b@x")
    replies = app.control.ping(timeout=LONG, limit=2)
    assert sorted(replies, key=str) == [{"a@x": {"ok": "pong"}}, {"b@x": {"ok": "pong"}}]


def test_limit_returns_early(app: Any, serve: Serve) -> None:
    serve("a@x")
    started = time.monotonic()
    assert len(app.control.ping(timeout=LONG, limit=1)) == 1
    assert time.monotonic() - started < LONG / 2


def test_destination_returns_early_and_leaves_others_out(app: Any, serve: Serve) -> None:
    serve("a@x")
    other = serve("b@x")
    started = time.monotonic()
    assert app.control.ping(["a@x"], timeout=LONG) == [{"a@x": {"ok": "pong"}}]
    assert time.monotonic() - started < LONG / 2
    wait_until(lambda: bool(other.requests))
    assert other.requests[0]["destination"] == ["a@x"]


def test_destination_may_be_one_name(app: Any, serve: Serve) -> None:
    serve("a@x")
    assert app.control.broadcast("ping", destination="a@x", reply=True, timeout=LONG) == [
        {"a@x": {"ok": "pong"}}
    ]


def test_destination_of_another_type_is_refused(app: Any) -> None:
    with pytest.raises(ValueError, match="node names"):
        app.control.broadcast("ping", destination=[1])


def test_the_timeout_is_one_deadline_however_many_replies_come(app: Any, serve: Serve) -> None:
    for number in range(3):
        serve(f"n{number}@x")
    started = time.monotonic()
    assert len(app.control.ping(timeout=0.6)) == 3
    assert 0.5 < time.monotonic() - started < 3


def test_no_answer_is_an_empty_list(app: Any) -> None:
    assert app.control.ping(timeout=0.05) == []
    assert app.control.inspect(timeout=0.05).ping() is None


def test_a_command_is_not_waited_for_by_default(app: Any, serve: Serve) -> None:
    node = serve("a@x")
    assert app.control.broadcast("echo", {"n": 1}) is None
    wait_until(lambda: bool(node.requests))
    request = node.requests[0]
    assert request == {
        "method": "echo",
        "arguments": {"n": 1},
        "destination": None,
        "pattern": None,
        "matcher": None,
    }


def test_request_on_the_wire(app: Any, serve: Serve) -> None:
    node = serve("a@x")
    before = time.time()
    app.control.broadcast("echo", {"n": 1}, reply=True, timeout=LONG, limit=1)
    request, message = node.requests[0], node.messages[0]
    namespace = app.conf.control_exchange
    assert request["reply_to"]["exchange"] == f"reply.{namespace}.pidbox"
    assert uuid.UUID(request["ticket"])
    assert uuid.UUID(request["reply_to"]["routing_key"]).version == 3
    assert message.headers["clock"] >= 1
    assert before + LONG <= message.headers["expires"] <= time.time() + LONG
    assert message.properties["delivery_mode"] == 2
    assert message.delivery_info["routing_key"] == ""
    assert message.delivery_info["exchange"] == f"{namespace}.pidbox"
    assert message.content_type == "application/json"


def test_without_timeout_the_request_does_not_expire(app: Any, serve: Serve) -> None:
    node = serve("a@x")
    app.control.broadcast("echo", timeout=None)
    wait_until(lambda: bool(node.messages))
    assert node.messages[0].headers["expires"] == 0


def test_extra_keywords_are_arguments(app: Any, serve: Serve) -> None:
    serve("a@x")
    (reply,) = app.control.broadcast("echo", {"a": 1}, reply=True, timeout=LONG, limit=1, b=2)
    assert reply == {"a@x": {"ok": {"a": 1, "b": 2}}}


def test_an_error_of_the_handler_is_an_error_reply(app: Any, serve: Serve) -> None:
    serve("a@x")
    assert app.control.broadcast("fail", reply=True, timeout=LONG, limit=1) == [
        {"a@x": {"error": "ValueError('no')"}}
    ]
    assert app.control.broadcast("nothing", reply=True, timeout=LONG, limit=1) == [
        {"a@x": {"error": "KeyError('nothing')"}}
    ]


def test_callback_sees_each_reply_and_may_ask_again(app: Any, serve: Serve) -> None:
    serve("a@x")
    seen: list[Any] = []

    def ask_again(reply: dict[str, Any]) -> None:
        seen.append(reply)
        seen.append(app.control.broadcast("echo", {"n": 2}, reply=True, timeout=LONG, limit=1))

    app.control.ping(timeout=LONG, limit=1, callback=ask_again)
    assert seen == [{"a@x": {"ok": "pong"}}, [{"a@x": {"ok": {"n": 2}}}]]


def test_requests_of_several_threads_do_not_mix(app: Any, serve: Serve) -> None:
    serve("a@x")
    results: dict[int, Any] = {}

    def ask(number: int) -> None:
        results[number] = app.control.broadcast("echo", {"n": number}, reply=True, timeout=LONG, limit=1)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [{"a@x": {"ok": {"n": n}}}] for n in range(6)}


def test_foreign_and_expired_replies_are_skipped(app: Any, serve: Serve) -> None:
    def answer_oddly(state: Any, **_: Any) -> Any:
        request = state.requests[-1]
        target = request["reply_to"]
        with app.connect() as connection:
            producer = Producer(connection.channel())
            for headers in (
                {"ticket": "of-nobody", "clock": 1},
                {"ticket": request["ticket"], "clock": 1, "expires": time.time() - 1},
            ):
                producer.publish(
                    {"x@x": "wrong"},
                    exchange=target["exchange"],
                    routing_key=target["routing_key"],
                    headers=headers,
                )
        return "right"

    serve("a@x", odd=answer_oddly)
    assert app.control.broadcast("odd", reply=True, timeout=LONG, limit=1) == [{"a@x": "right"}]
    assert app.control.mailbox.unclaimed == {}


def test_replies_advance_the_clock(app: Any, serve: Serve) -> None:
    serve("a@x")
    before = app.clock.value
    app.control.ping(timeout=LONG, limit=1)
    assert app.clock.value > before + 1


def test_pattern_selects_nodes(app: Any, serve: Serve) -> None:
    serve("web1@x")
    serve("db1@x")
    assert app.control.ping(pattern="web*", timeout=LONG, limit=1) == [{"web1@x": {"ok": "pong"}}]
    replies = app.control.inspect(pattern=r"^db\d", matcher="pcre", timeout=LONG, limit=1).ping()
    assert replies == {"db1@x": {"ok": "pong"}}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pattern": "x", "matcher": "nonsense"}, "nonsense"),
        ({"pattern": "(", "matcher": "pcre"}, "cannot match"),
        ({"matcher": "glob"}, "needs a pattern"),
        ({"pattern": 3}, "must be strings"),
    ],
)
def test_bad_patterns_are_refused_before_anything_is_sent(app: Any, options: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        app.control.shutdown(**options)


def test_an_unreachable_broker_is_named(app: Any) -> None:
    connection = Connection("redis://127.0.0.1:1/0", transport_options={"socket_connect_timeout": 1})
    with pytest.raises(OperationalError, match=r"lost the broker redis://.*127\.0\.0\.1:1/0"):
        app.control.ping(connection=connection)


def test_durable_and_exclusive_queues_contradict(app: Any) -> None:
    app.conf.control_queue_durable = True
    with pytest.raises(ImproperlyConfigured, match="control_queue_exclusive"):
        app.control.ping()


def test_mailbox_entities(app: Any) -> None:
    mailbox = app.control.mailbox
    queue = mailbox.get_queue("q@x")
    name = app.conf.control_exchange
    assert queue.name == f"q@x.{name}.pidbox"
    assert (mailbox.exchange.name, mailbox.exchange.type) == (f"{name}.pidbox", "fanout")
    assert (queue.durable, queue.auto_delete, queue.exclusive) == (False, True, True)
    assert (queue.message_ttl, queue.expires) == (300.0, 10.0)
    assert mailbox.get_reply_queue().name == f"{mailbox.oid}.reply.{name}.pidbox"


COMMANDS: list[tuple[Callable[[Any], Any], str, dict[str, Any]]] = [
    (lambda c: c.revoke("1"), "revoke", {"task_id": "1", "terminate": False, "signal": "SIGTERM"}),
    (
        lambda c: c.revoke(("1", "2"), terminate=True, signal="SIGKILL"),
        "revoke",
        {"task_id": ["1", "2"], "terminate": True, "signal": "SIGKILL"},
    ),
    (lambda c: c.terminate("1"), "revoke", {"task_id": "1", "terminate": True, "signal": "SIGTERM"}),
    (
        lambda c: c.revoke_by_stamped_headers({"h": ["v"]}),
        "revoke_by_stamped_headers",
        {"headers": {"h": ["v"]}, "terminate": False, "signal": "SIGTERM"},
    ),
    (lambda c: c.rate_limit("t", "1/m"), "rate_limit", {"task_name": "t", "rate_limit": "1/m"}),
    (lambda c: c.time_limit("t", soft=1, hard=2), "time_limit", {"task_name": "t", "hard": 2, "soft": 1}),
    (
        lambda c: c.add_consumer("foo"),
        "add_consumer",
        {"queue": "foo", "exchange": None, "exchange_type": "direct", "routing_key": None},
    ),
    (
        lambda c: c.add_consumer(
            queue="baz",
            exchange="ex",
            exchange_type="topic",
            routing_key="media.*",
            options={"queue_durable": False},
        ),
        "add_consumer",
        {
            "queue": "baz",
            "exchange": "ex",
            "exchange_type": "topic",
            "routing_key": "media.*",
            "queue_durable": False,
        },
    ),
    (lambda c: c.cancel_consumer("foo"), "cancel_consumer", {"queue": "foo"}),
    (lambda c: c.enable_events(), "enable_events", {}),
    (lambda c: c.disable_events(), "disable_events", {}),
    (lambda c: c.heartbeat(), "heartbeat", {}),
    (lambda c: c.pool_grow(2), "pool_grow", {"n": 2}),
    (lambda c: c.pool_shrink(), "pool_shrink", {"n": 1}),
    (lambda c: c.pool_restart(["m"]), "pool_restart", {"modules": ["m"], "reload": False, "reloader": None}),
    (lambda c: c.autoscale(4, 1), "autoscale", {"max": 4, "min": 1}),
    (lambda c: c.shutdown(), "shutdown", {}),
    (
        lambda c: c.election("i", "task", {"task": "t"}),
        "election",
        {"id": "i", "topic": "task", "action": {"task": "t"}},
    ),
    (lambda c: c.inspect(timeout=0.01).active(safe=True), "active", {"safe": True}),
    (lambda c: c.inspect(timeout=0.01).scheduled(), "scheduled", {}),
    (lambda c: c.inspect(timeout=0.01).reserved(), "reserved", {}),
    (lambda c: c.inspect(timeout=0.01).stats(), "stats", {}),
    (lambda c: c.inspect(timeout=0.01).revoked(), "revoked", {}),
    (
        lambda c: c.inspect(timeout=0.01).registered("rate_limit"),
        "registered",
        {"taskinfoitems": ["rate_limit"]},
    ),
    (lambda c: c.inspect(timeout=0.01).active_queues(), "active_queues", {}),
    (lambda c: c.inspect(timeout=0.01).query_task("1", "2"), "query_task", {"ids": ["1", "2"]}),
    (lambda c: c.inspect(timeout=0.01).query_task(["1", "2"]), "query_task", {"ids": ["1", "2"]}),
    (lambda c: c.inspect(timeout=0.01).conf(), "conf", {"with_defaults": False}),
    (lambda c: c.inspect(timeout=0.01).clock(), "clock", {}),
    (lambda c: c.inspect(timeout=0.01).report(), "report", {}),
    (lambda c: c.inspect(timeout=0.01).hello("q@x"), "hello", {"from_node": "q@x", "revoked": None}),
    (lambda c: c.inspect(timeout=0.01).memsample(), "memsample", {}),
    (lambda c: c.inspect(timeout=0.01).memdump(5), "memdump", {"samples": 5}),
    (
        lambda c: c.inspect(timeout=0.01).objgraph(),
        "objgraph",
        {"num": 200, "max_depth": 10, "type": "Request"},
    ),
]


@pytest.mark.parametrize(("ask", "method", "arguments"), COMMANDS)
def test_command_names_and_arguments(app: Any, serve: Serve, ask: Any, method: str, arguments: Any) -> None:
    node = serve("a@x", **{method: lambda state, **_: {"ok": ""}})
    ask(app.control)
    wait_until(lambda: bool(node.requests))
    assert (node.requests[0]["method"], node.requests[0]["arguments"]) == (method, arguments)


@pytest.mark.parametrize("command", ["revoke", "terminate", "revoke_by_stamped_headers"])
def test_an_unknown_signal_is_refused(app: Any, command: str) -> None:
    with pytest.raises(ValueError, match="SIGKLL"):
        getattr(app.control, command)("1", signal="SIGKLL")


def test_inspect_maps_nodes_to_answers(app: Any, serve: Serve) -> None:
    serve("a@x", active=lambda state, safe=None: [{"id": "1"}])
    assert app.control.inspect("a@x", timeout=LONG).active() == {"a@x": [{"id": "1"}]}
    assert app.control.inspect(timeout=LONG).ping("a@x") == {"a@x": {"ok": "pong"}}


def test_two_workers_of_one_name_are_warned_about(app: Any, serve: Serve) -> None:
    serve("a@x", answers=lambda state: 1)
    answers = app.control.broadcast("answers", reply=True, timeout=LONG, limit=1) * 2
    from qcore.control import flatten_replies

    with pytest.warns(DuplicateNodenameWarning, match="a@x"):
        assert flatten_replies(answers) == {"a@x": 1}


def test_purge_empties_the_task_queues_and_counts(app: Any) -> None:
    name = f"tasks-{uuid.uuid4()}"
    queue = Queue(name, Exchange(name), routing_key=name)
    app.amqp.queues = {name: queue}
    with app.connect() as connection:
        producer = Producer(connection.channel())
        for _ in range(3):
            producer.publish({}, exchange=name, routing_key=name, declare=[queue])
    assert app.control.purge() == 3
    assert app.control.discard_all() == 0
