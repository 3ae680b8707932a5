"""Publishing on a real RabbitMQ: confirmed, refused, returned, too late."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from proxy import Proxy

from qbrokers.amqp import MessageReturned, PartlyPublished, PublishRefused, PublishTimeout
from qbrokers.batching import Publication
from qbrokers.testing import Target
from qbrokers.testing.untyped import kombu

Connect = Callable[..., Any]


def message(channel: Any, name: str, body: bytes = b"x", **properties: Any) -> Any:
    return channel.prepare_message(
        body, 0, "application/octet-stream", "binary", {"id": name}, {"delivery_mode": 2, **properties}
    )


def depth(channel: Any, name: str) -> int:
    return int(channel.queue_declare(name, passive=True).message_count)


def test_batch_is_on_the_broker_when_the_call_returns(channel: Any, queue: Any, connect: Connect) -> None:
    channel.publish_many([Publication(message(channel, str(n)), "", queue.name) for n in range(3000)])
    assert len(channel.confirms) == 0
    assert depth(connect().channel(), queue.name) == 3000


def test_large_bodies_cross_several_frames_and_writes(channel: Any, queue: Any) -> None:
    sizes = [0, 1, 131_064, 131_072, 400_000, 1]
    channel.publish_many([Publication(message(channel, "m", b"z" * n), "", queue.name) for n in sizes])
    assert [len(queue.get(no_ack=True).body) for _ in sizes] == sizes


def test_returned_mandatory_message_is_named(channel: Any) -> None:
    with pytest.raises(MessageReturned, match=r"NO_ROUTE.*message lost-1"):
        channel.basic_publish(message(channel, "lost-1"), "", f"deleted-{uuid.uuid4().hex}", mandatory=True)


def test_mandatory_message_to_a_deleted_queue(channel: Any, connect: Connect) -> None:
    name = f"amqp-test-{uuid.uuid4().hex[:12]}"
    channel.queue_declare(name, durable=True, auto_delete=False)
    channel.basic_publish(message(channel, "kept"), "", name, mandatory=True)
    connect().channel().queue_delete(name)
    with pytest.raises(MessageReturned):
        channel.basic_publish(message(channel, "lost"), "", name, mandatory=True)


def test_refused_messages_are_named_and_the_rest_is_there(channel: Any, connect: Connect) -> None:
    name = f"amqp-test-{uuid.uuid4().hex[:12]}"
    limits = {"x-max-length": 3, "x-overflow": "reject-publish"}
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=limits)
    try:
        with pytest.raises(PartlyPublished) as partly:
            channel.publish_many([Publication(message(channel, f"id-{n}"), "", name) for n in range(5)])
        assert [text.split()[1] for text in partly.value.messages] == ["id-3", "id-4"]
        with pytest.raises(PublishRefused, match="id-9"):
            channel.basic_publish(message(channel, "id-9"), "", name)
        assert depth(channel, name) == 3
    finally:
        connect().channel().queue_delete(name)


def test_unknown_exchange_is_an_error_and_the_channel_lives_on(channel: Any, queue: Any) -> None:
    with pytest.raises(channel.connection.channel_errors, match="NOT_FOUND"):
        channel.basic_publish(message(channel, "1"), f"missing-{uuid.uuid4().hex}", "key")
    channel.basic_publish(message(channel, "2"), "", queue.name)
    assert depth(channel, queue.name) == 1


@pytest.mark.soak
def test_message_above_the_maximum_size_is_an_error(channel: Any, queue: Any) -> None:
    with pytest.raises(channel.connection.channel_errors, match="PRECONDITION_FAILED"):
        channel.basic_publish(message(channel, "big", bytes(134_217_729)), "", queue.name)


def test_broker_that_does_not_answer_ends_in_an_error_in_time(target: Target, queue: Any) -> None:
    parts = urlsplit(target.url)
    with Proxy("127.0.0.1", parts.port or 5672) as proxy:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}{parts.path}"
        connection = Target(url, target.transport).connect(publish_timeout=1.0)
        channel = connection.channel()
        channel.basic_publish(message(channel, "1"), "", queue.name)
        proxy.freeze()
        begun = time.monotonic()
        with pytest.raises(PublishTimeout, match="not confirmed"):
            channel.basic_publish(message(channel, "2"), "", queue.name)
        connection.release()
        assert 0.9 < time.monotonic() - begun < 4


def test_app_gives_up_within_its_deadline(target: Target, queue: Any) -> None:
    from qcore import App
    from qcore.errors import OperationalError

    parts = urlsplit(target.url)
    with Proxy("127.0.0.1", parts.port or 5672) as proxy:
        app = App(
            "late", broker=f"amqp://guest:guest@127.0.0.1:{proxy.port}{parts.path}", set_as_current=False
        )
        app.conf.update(broker_publish_timeout=1.5, task_default_queue=queue.name)
        app.send_task("nobody.knows")
        proxy.freeze()
        begun = time.monotonic()
        with pytest.raises(OperationalError, match="cannot send to the broker"):
            app.send_task("nobody.knows")
        assert time.monotonic() - begun < 6
        app.close()


def test_transient_messages_are_not_waited_for(channel: Any, queue: Any, connect: Connect) -> None:
    channel.basic_publish(message(channel, "1", delivery_mode=1), "", queue.name)
    assert not channel.confirms.selected
    other = connect().channel()
    with kombu.Consumer(other, [kombu.Queue(queue.name, no_declare=True)], on_message=lambda m: m.ack()):
        other.connection.drain_events(timeout=5)


@pytest.mark.parametrize("confirm", [True, False])
def test_confirms_can_be_switched_off(connect: Connect, queue: Any, confirm: bool) -> None:
    channel = connect(confirm_publish=confirm).channel()
    channel.publish_many([Publication(message(channel, "1"), "", queue.name)])
    assert channel.confirms.selected is confirm


def test_batch_of_a_kombu_producer_is_published_at_its_end(connect: Connect, queue: Any) -> None:
    channel, looking = connect().channel(), connect().channel()
    producer = kombu.Producer(channel)
    with producer.batch(max_size=3):
        for number in range(5):
            producer.publish(number, routing_key=queue.name)
        assert depth(looking, queue.name) == 3
    assert [queue.get(no_ack=True).decode() for _ in range(5)] == list(range(5))


WAYS = {
    "delay": "for n in range(COUNT): task.delay(n)",
    "bulk": "with app.bulk():\n    for n in range(COUNT): task.delay(n)",
    "transient": "task.delivery_mode = 1\nwith app.bulk():\n    for n in range(COUNT): task.delay(n)",
    "thread": "def run():\n    for n in range(COUNT): task.delay(n)\n"
    "thread = threading.Thread(target=run); thread.start(); thread.join()",
    "adelay": "async def run():\n    for n in range(COUNT): await task.adelay(n)\nasyncio.run(run())",
}
ENDS = {
    "falls off": "",
    "sys.exit": "sys.exit()",
    "os._exit": "os._exit(0)",
    "SIGKILL": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("way", "count"),
    [("delay", 200), ("bulk", 5000), ("transient", 5000), ("thread", 200), ("adelay", 200)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_program_that_ends_at_once_has_published_all(
    target: Target, queue: Any, channel: Any, way: str, count: int, end: str
) -> None:
    program = f"""
import asyncio, os, sys, threading
from qcore import App
app = App("ends", broker={target.url!r})
app.conf.task_default_queue = {queue.name!r}
COUNT = {count}
@app.task(ignore_result=True)
def task(n): ...
{WAYS[way]}
{ENDS[end]}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == (-9 if end == "SIGKILL" else 0), done.stderr
    # No wait: what the broker has confirmed is in the queue.
    assert depth(channel, queue.name) == count
