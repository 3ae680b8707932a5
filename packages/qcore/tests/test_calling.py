"""What a call puts on the broker (CAL, ETA, PUB, RTE, W2, W4, W5)."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from kombu import Queue

from qcore import App, signals
from qcore.errors import OperationalError


@pytest.fixture
def app():
    with App("t", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app
        with app.connection_for_write() as connection:
            for name in ("celery", "other", "video"):
                app.amqp.queues[name](connection.default_channel).purge()


@pytest.fixture
def add(app):
    @app.task(name="t.add")
    def add(x, y):
        return x + y

    return add


def sent(app, queue="celery"):
    """The next message of `queue`."""
    with app.connection_for_read() as connection:
        message = app.amqp.queues[queue](connection.default_channel).get(no_ack=True)
        assert message is not None
        return message


def test_delay_sends_protocol_2_in_json(app, add):
    result = add.delay(2, y=3)
    message = sent(app)

    assert message.headers["task"] == "t.add"
    assert message.headers["id"] == result.id == message.properties["correlation_id"]
    assert message.content_type == "application/json"
    assert json.loads(message.body)[:2] == [[2], {"y": 3}]
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("(2,)", "{'y': 3}")


def test_the_reply_address_is_this_threads(app, add):
    add.delay(1, 1)

    assert sent(app).properties["reply_to"] == app.oid


def test_the_priority_is_always_there(app, add):
    add.delay(1, 1)

    assert sent(app).properties["priority"] == 0


def test_the_priority_of_a_call_is_sent(tmp_path):
    with App("t", broker=f"sqlite:///{tmp_path}/broker.db", set_as_current=False) as app:
        app.task(name="t.add")(lambda x, y: x + y).apply_async((1, 1), priority=5)

        assert sent(app).properties["priority"] == 5


@pytest.mark.parametrize("priority", [-1, 256, "9", 1.5, True])
def test_a_priority_that_no_broker_takes_is_refused(add, priority):
    with pytest.raises(ValueError, match="priority"):
        add.apply_async((1, 1), priority=priority)


def test_wrong_arguments_fail_before_anything_is_sent(app, add):
    with pytest.raises(TypeError, match=r"add\(\) missing 1 required positional argument: 'y'"):
        add.delay(1)
    with app.connection_for_read() as connection:
        queue = app.amqp.queues["celery"](connection.default_channel)
        queue.declare()
        assert queue.get(no_ack=True) is None


def test_typing_false_sends_wrong_arguments(app):
    app.task(name="loose", typing=False)(lambda x: x).delay()

    assert sent(app).headers["task"] == "loose"


def test_a_countdown_becomes_an_eta_in_utc(app, add):
    before = datetime.now(UTC)
    add.apply_async((1, 1), countdown=10)
    eta = datetime.fromisoformat(sent(app).headers["eta"])

    assert timedelta(seconds=9) < eta - before < timedelta(seconds=12)
    assert eta.utcoffset() == timedelta(0)


def test_an_eta_keeps_its_offset_and_a_naive_one_is_utc(app, add):
    add.apply_async((1, 1), eta=datetime(2030, 1, 1, 12))
    add.apply_async((1, 1), eta=datetime.fromisoformat("2030-01-01T12:00:00+02:00"))

    assert sent(app).headers["eta"] == "2030-01-01T12:00:00+00:00"
    assert sent(app).headers["eta"] == "2030-01-01T12:00:00+02:00"


@pytest.mark.parametrize("eta", [5, "tomorrow", object()])
def test_an_eta_that_is_no_time_is_refused(add, eta):
    with pytest.raises(ValueError, match="datetime"):
        add.apply_async((1, 1), eta=eta)


def test_a_countdown_out_of_range_is_refused(add):
    with pytest.raises(ValueError, match="out of range"):
        add.apply_async((1, 1), countdown=-(2**31) - 1)
    with pytest.raises(ValueError, match="out of range"):
        add.apply_async((1, 1), countdown=1e300)


def test_expires_is_a_header_and_a_time_to_live(app, add):
    add.apply_async((1, 1), expires=60)
    message = sent(app)

    assert datetime.fromisoformat(message.headers["expires"]) > datetime.now(UTC)
    assert 59_000 <= int(message.properties["expiration"]) <= 60_000


def test_an_expiry_in_the_past_lives_no_time_and_warns(app, add, caplog):
    add.apply_async((1, 1), expires=-5)

    assert sent(app).properties["expiration"] == "0"
    assert "expires in the past" in caplog.text


def test_limits_travel_hard_then_soft(app, add):
    add.apply_async((1, 1), time_limit=10, soft_time_limit=5)

    assert sent(app).headers["timelimit"] == [10, 5]


def test_a_soft_limit_beyond_the_hard_one_is_refused(add):
    with pytest.raises(ValueError, match="soft_time_limit"):
        add.apply_async((1, 1), time_limit=1, soft_time_limit=5)


def test_queue_names_a_queue_that_is_made_on_the_way(app, add):
    add.apply_async((1, 1), queue="video")
    message = sent(app, "video")

    assert message.delivery_info["routing_key"] == "video"
    assert message.delivery_info["exchange"] == ""


def test_task_routes_send_a_task_elsewhere(app, add):
    app.conf.task_routes = {"t.*": {"queue": "video"}}
    add.delay(1, 1)

    assert sent(app, "video").headers["task"] == "t.add"


def test_the_option_of_the_call_wins_over_the_route(app, add):
    app.conf.task_routes = {"t.*": "video"}
    add.apply_async((1, 1), queue="other")

    assert sent(app, "other").headers["task"] == "t.add"


def test_a_declared_queue_with_a_topic_exchange_is_reached_through_it(app, add):
    from kombu import Exchange

    app.conf.task_queues = [Queue("other", Exchange("media", "topic"), routing_key="media.#")]
    app.conf.task_default_queue = "other"
    add.apply_async((1, 1), routing_key="media.video")

    message = sent(app, "other")
    assert message.delivery_info["exchange"] == "media"


def test_headers_of_the_user_stand_beside_those_of_the_protocol(app, add):
    add.apply_async((1, 1), headers={"tenant": 7})

    assert sent(app).headers["tenant"] == 7


def test_compression_is_named_in_the_headers(app, add):
    add.apply_async((1, 1), compression="gzip")
    message = sent(app)  # kombu has undone the compression that the header names

    assert message.headers["compression"] == "application/x-gzip"
    assert json.loads(message.body)[0] == [1, 1]


def test_the_text_forms_can_hide_arguments(app, add):
    add.apply_async(("secret", 1), argsrepr="('****', 1)")

    assert sent(app).headers["argsrepr"] == "('****', 1)"


def test_an_unknown_keyword_becomes_a_property(app, add):
    add.apply_async((1, 1), MessageGroupId="g")

    assert sent(app).properties["MessageGroupId"] == "g"


def test_protocol_1_is_sent_when_asked_for(app, add):
    app.conf.task_protocol = 1
    add.delay(1, 2)
    body = json.loads(sent(app).body)

    assert (body["task"], body["args"]) == ("t.add", [1, 2])


def test_send_task_needs_no_registered_task(app):
    result = app.send_task("somewhere.else", (1,), {"x": 2})
    message = sent(app)

    assert message.headers["task"] == "somewhere.else"
    assert message.headers["id"] == result.id
    assert message.headers["ignore_result"] is None


def test_arguments_that_are_no_sequence_or_mapping_are_refused(app):
    with pytest.raises(TypeError, match="task args"):
        app.send_task("x", "text")
    with pytest.raises(TypeError, match="keyword"):
        app.send_task("x", (), ["no"])


def test_what_cannot_be_encoded_raises_before_anything_is_sent(add):
    from kombu.exceptions import EncodeError

    with pytest.raises(EncodeError):
        add.delay(object(), 1)


def test_bulk_puts_all_calls_of_the_block(app, add):
    with app.bulk():
        results = [add.delay(i, i) for i in range(25)]

    assert [sent(app).headers["id"] for _ in results] == [result.id for result in results]


def test_a_call_that_fails_inside_bulk_does_not_lose_the_ones_before(app, add):
    with pytest.raises(TypeError), app.bulk():
        add.delay(1, 1)
        add.delay(1)

    assert sent(app).headers["argsrepr"] == "(1, 1)"


def test_the_signals_tell_of_every_message(app, add):
    seen = []

    @signals.before_task_publish.connect(sender="t.add")
    def before(headers=None, properties=None, **_):
        headers["tenant"] = 1
        seen.append("before")

    @signals.after_task_publish.connect(sender="t.add")
    def after(routing_key=None, **_):
        seen.append(routing_key)

    try:
        add.delay(1, 1)
    finally:
        signals.before_task_publish.disconnect(before, sender="t.add")
        signals.after_task_publish.disconnect(after, sender="t.add")

    assert seen == ["before", "celery"]
    assert sent(app).headers["tenant"] == 1


def test_ignored_results_are_marked_in_the_message_and_on_the_result(app, add):
    result = add.apply_async((1, 1), ignore_result=True)

    assert sent(app).headers["ignore_result"] is True
    assert result.ignored is True


def test_a_broker_that_refuses_connections_raises_naming_it():
    with App("x", broker="amqp://guest:secret@127.0.0.1:1//", set_as_current=False) as app:
        with pytest.raises(OperationalError) as caught:
            app.send_task("x", retry=False)

        assert "127.0.0.1:1" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_the_retry_policy_calls_its_errback_before_each_further_try():
    tries = []
    policy = {
        "max_retries": 2,
        "interval_start": 0,
        "interval_step": 0,
        "errback": lambda *a: tries.append(a),
    }
    with (
        App("x", broker="amqp://guest:secret@127.0.0.1:1//", set_as_current=False) as app,
        pytest.raises(OperationalError),
    ):
        app.send_task("x", retry_policy=policy)

    assert len(tries) == 2


async def call_from_async_code(add):
    return await add.adelay(1, 2)


def test_async_code_sends_without_blocking(app, add):
    import asyncio

    result = asyncio.run(call_from_async_code(add))

    assert sent(app).headers["id"] == result.id
