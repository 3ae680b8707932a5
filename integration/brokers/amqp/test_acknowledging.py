"""Acknowledgements on a real RabbitMQ: exactly those that were asked for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from qbrokers.batching import Publication
from qbrokers.testing.harness import collect, drain_until

Connect = Callable[..., Any]


def fill(channel: Any, queue: Any, count: int) -> None:
    channel.publish_many(
        [
            Publication(
                channel.prepare_message(str(n), 0, "text/plain", "utf-8", {}, {"delivery_mode": 2}),
                "",
                queue.name,
            )
            for n in range(count)
        ]
    )


def left_over(connect: Connect, queue: Any) -> list[int]:
    channel = connect().channel()
    numbers = []
    while (msg := queue(channel).get(no_ack=True, accept=["text/plain"])) is not None:
        numbers.append(int(msg.body))
    return sorted(numbers)


@pytest.mark.parametrize("seed", range(6))
def test_random_answers_leave_exactly_the_others(connect: Connect, queue: Any, seed: int) -> None:
    chance = random.Random(seed)
    fill(connect().channel(), queue, 200)
    connection = connect()
    channel = connection.channel()
    held = collect(channel, [queue(channel)], 200, ack=False, accept=["text/plain"])
    chance.shuffle(held)
    kept = set()
    for message in held:
        match chance.randrange(5):
            case 0:
                kept.add(int(message.body))
            case 1:
                message.requeue()
                kept.add(int(message.body))
            case 2:
                message.reject()
            case _:
                message.ack()
        if chance.random() < 0.1:
            channel.flush()
    connection.release()
    assert left_over(connect, queue) == sorted(kept)


def test_acknowledgements_of_one_tick_are_one_write(connect: Connect, queue: Any) -> None:
    fill(connect().channel(), queue, 50)
    channel = connect().channel()
    held = collect(channel, [queue(channel)], 50, ack=False, accept=["text/plain"])
    channel.flush()
    frames = channel.connection.bytes_sent
    for message in held:
        message.ack()
    channel.flush()
    # py-amqp counts frames here: one with "multiple" stands for all.
    assert channel.connection.bytes_sent == frames + 1
    assert left_over(connect, queue) == []


def test_acknowledgement_leaves_while_the_program_works_on(connect: Connect, queue: Any) -> None:
    fill(connect().channel(), queue, 1)
    channel = connect().channel()
    (message,) = collect(channel, [queue(channel)], 1, ack=False, accept=["text/plain"])
    message.ack()
    # Nothing of this connection is called from here on.
    watcher = connect()
    looking = watcher.channel()
    drain_until(watcher, lambda: not channel.book.waiting)
    channel.connection.transport.close()
    drain_until(watcher, lambda: looking.queue_declare(queue.name, passive=True).message_count == 0)
    assert left_over(connect, queue) == []


def test_tags_of_a_closed_channel_mean_nothing_afterwards(connect: Connect, queue: Any) -> None:
    fill(connect().channel(), queue, 2)
    channel = connect().channel()
    (old,) = collect(channel, [queue(channel)], 1, ack=False, accept=["text/plain"])[:1]
    with pytest.raises(channel.connection.channel_errors):
        channel.queue_declare("missing-" + queue.name, passive=True)
    # The server has reopened the channel and counts from 1 again.
    new = queue(channel).get(accept=["text/plain"])
    assert new.delivery_tag > old.delivery_tag
    old.ack()
    channel.flush()
    channel.close()
    assert left_over(connect, queue) == [0, 1]
