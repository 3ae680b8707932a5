"""Whatever somebody pushes into a queue: it is delivered or put aside, and what stands behind it is served."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Consumer, Queue
from redis_support import Broker, drain

INFINITE = b"1e400"


def envelope(headers: Any = None, properties: Any = None, **parts: Any) -> bytes:
    whole = {
        "body": b64encode(b"bad").decode(),
        "content-type": "text/plain",
        "content-encoding": "utf-8",
        "headers": {} if headers is None else headers,
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "jobs"},
            "body_encoding": "base64",
            "priority": 0,
            "delivery_tag": "1",
            **(properties if isinstance(properties, dict) else {}),
        },
    }
    if isinstance(properties, list):
        whole["properties"] = properties
    return json.dumps({**whole, **parts}).encode()


GOOD = envelope(body=b64encode(b"good").decode())


def with_header(value: bytes) -> bytes:
    return envelope().replace(b'"headers": {}', b'"headers": {"a": %s}' % value)


def with_priority(value: bytes) -> bytes:
    return envelope().replace(b'"priority": 0', b'"priority": ' + value)


BAD = {
    "nothing": b"",
    "no JSON": b"{[",
    "a list": b"[]",
    "null": b"null",
    "bytes that are no text": b'{"body": "\xe4"}',
    "text after the end": envelope() + b" x",
    "no properties": b'{"body": "x"}',
    "properties that are a list": envelope(properties=[]),
    "no body": envelope().replace(b'"body"', b'"corpse"'),
    "a number as body": envelope(body=5),
    "a body that is not base64": envelope(body="abc"),
    "an unknown encoding of the body": envelope(properties={"body_encoding": "rot13"}),
    "a list as encoding of the body": envelope(properties={"body_encoding": ["base64"]}),
    "delivery information that is a list": envelope(properties={"delivery_info": []}),
    "headers nested too deeply": with_header(b"[" * 100_000 + b"]" * 100_000),
    "headers nested too deeply to be written": with_header(b"[" * 990 + b"]" * 990),
    "a type nested too deeply": with_header(b'{"__type__": %s}' % (b"[" * 10_000 + b"]" * 10_000)),
    "a type with an impossible value": with_header(b'{"__type__": "datetime", "__value__": 5}'),
    "a list as type": with_header(b'{"__type__": [], "__value__": 5}'),
    "a number that is none": with_header(b"NaN"),
    "an infinite number": with_header(INFINITE),
    "an integer of 5000 digits": with_header(b"9" * 5000),
    "headers that are a list": envelope(headers=[1]),
    "a count of deliveries in words": envelope(headers={"x-delivery-count": "many"}),
    "an infinite priority": with_priority(INFINITE),
    "a priority in words": with_priority(b'"high"'),
    "a mark of priority that is a list": envelope(properties={"x-priority": [9]}),
    "an infinite time": envelope().replace(b'"priority": 0', b'"eta_timestamp": ' + INFINITE),
    "a time that is no number": envelope(properties={"eta_timestamp": float("nan")}),
    "a time beyond the calendar": envelope(headers={"eta": "9999-12-31T23:59:59.999999-23:59"}),
    "a deadline in words": envelope(properties={"x-deadline": "soon"}),
    "a number as content type": envelope(**{"content-type": 5}),
    "a key twice": envelope()[:-1] + b', "body": "eA==", "body": "eA=="}',
}  # fmt: skip


def push_all(broker: Broker) -> None:
    """Each bad one is followed by a good one."""
    for raw in BAD.values():
        broker.client.lpush(broker.prefix + "jobs", raw, GOOD)


def check(broker: Broker, delivered: list[bytes], errors: list[str]) -> None:
    put_aside = broker.client.lrange(broker.prefix + "jobs.dead", 0, -1)
    delayed = broker.client.zcard(broker.prefix + "_qbrokers.delayed.jobs")
    assert delivered.count(b"good") == len(BAD)
    assert len(delivered) - len(BAD) + len(put_aside) + delayed == len(BAD)
    assert len(put_aside) == len(errors)
    assert set(put_aside) <= set(BAD.values()), "what is put aside is as it came"
    assert broker.held() == 0
    assert broker.client.llen(broker.prefix + "jobs") == 0


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_consumer_gets_everything_that_is_a_message(
    broker: Broker, caplog: pytest.LogCaptureFixture, no_ack: bool
) -> None:
    push_all(broker)
    delivered: list[bytes] = []

    def receive(message: Any) -> None:
        delivered.append(bytes(message.body))
        if not no_ack:
            message.ack()

    with broker.connect() as connection:
        with Consumer(connection.channel(), [Queue("jobs")], on_message=receive, no_ack=no_ack):
            drain(connection, 20, all_taken(broker, delivered))
        connection.default_channel.flush()
    check(broker, delivered, [record.message for record in caplog.records if "put aside" in record.message])


def test_asking_for_single_messages_passes_over_what_is_none(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    push_all(broker)
    delivered: list[bytes] = []
    with broker.connect() as connection:
        channel = connection.default_channel
        while (message := channel.basic_get("jobs")) is not None:
            delivered.append(bytes(message.body))
            message.ack()
        channel.flush()
    check(broker, delivered, [record.message for record in caplog.records if "put aside" in record.message])


def test_what_is_given_back_comes_again_or_is_put_aside(broker: Broker) -> None:
    push_all(broker)
    returned: list[bytes] = []
    delivered: list[bytes] = []

    def receive(message: Any) -> None:
        if message.headers.get("redelivered"):
            delivered.append(bytes(message.body))
            message.ack()
        else:
            returned.append(bytes(message.body))
            message.requeue()

    with (
        broker.connect() as connection,
        Consumer(connection.channel(), [Queue("jobs")], on_message=receive),
    ):
        drain(connection, 20, all_taken(broker, delivered))
    assert delivered.count(b"good") == len(BAD)
    assert len(delivered) <= len(returned)
    assert broker.held() == 0


def test_the_messages_of_a_dead_process_come_back_beside_what_is_no_message(broker: Broker) -> None:
    tags = {f"dead:{number}": raw for number, raw in enumerate(BAD.values())}
    entries = {tag: b'[%s,"","jobs"]' % raw for tag, raw in tags.items()}
    entries["dead:999"] = b'[%s,"","jobs"]' % GOOD
    broker.client.hset(broker.prefix + "unacked", mapping=entries)
    broker.client.zadd(broker.prefix + "unacked_index", dict.fromkeys(entries, 1.0))
    broker.client.zadd(broker.prefix + "_qbrokers.owners", {"dead": 1.0})
    delivered: list[bytes] = []

    def receive(message: Any) -> None:
        delivered.append(bytes(message.body))
        message.ack()

    with (
        broker.connect(lease_seconds=1) as connection,
        Consumer(connection.channel(), [Queue("jobs")], on_message=receive),
    ):
        drain(connection, 20, lambda: b"good" in delivered and broker.held() == 0)
    assert b"good" in delivered
    assert broker.held() == 0


def all_taken(broker: Broker, delivered: list[bytes]) -> Callable[[], bool]:
    def taken() -> bool:
        dead = broker.client.llen(broker.prefix + "jobs.dead")
        delayed = broker.client.zcard(broker.prefix + "_qbrokers.delayed.jobs")
        return len(delivered) + int(dead) + int(delayed) >= 2 * len(BAD)

    return taken
