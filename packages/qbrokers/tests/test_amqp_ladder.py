"""Names, arguments and keys of the delay queues."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("amqp")

from qbrokers.amqp import ladder


def travel(key: str) -> tuple[int, str]:
    """Seconds spent in the queues, and the key at the end, as the bindings lead a message."""
    digits = key.split(".")[: ladder.LEVELS]
    seconds = sum(2 ** (ladder.LEVELS - 1 - place) for place, digit in enumerate(digits) if digit == "1")
    return seconds, ladder.plain_key(key)


def test_key_is_binary_digits_highest_first_and_the_key() -> None:
    assert ladder.routing_key(5, "celery") == "0." * 25 + "1.0.1.celery"


@given(st.integers(0, ladder.LONGEST_DELAY_SECONDS))
def test_message_stays_as_long_as_it_should(delay: int) -> None:
    assert travel(ladder.routing_key(delay, "a.b")) == (delay, "a.b")


def test_longer_delays_are_cut() -> None:
    assert travel(ladder.routing_key(2**40, "k"))[0] == ladder.LONGEST_DELAY_SECONDS


def test_key_of_a_message_that_went_through_before_does_not_grow() -> None:
    once = ladder.routing_key(3, "celery")
    assert ladder.routing_key(3, once) == once


def test_too_long_a_key_is_an_error() -> None:
    with pytest.raises(ValueError, match="too long"):
        ladder.routing_key(1, "q" * 200)


@pytest.mark.parametrize(
    ("queue", "address"),
    [("celery", "celery"), ("video.celery", "queue:video%2Ecelery"), ("#", "queue:%23"), ("a b", "a b")],
)
def test_address_is_one_word(queue: str, address: str) -> None:
    assert ladder.address_of(queue) == address


@pytest.mark.parametrize(
    ("level", "queue_type", "arguments"),
    [
        (
            0,
            "classic",
            {
                "x-queue-type": "classic",
                "x-overflow": "reject-publish",
                "x-message-ttl": 1000,
                "x-dead-letter-exchange": "celery_delayed_delivery",
            },
        ),
        (
            4,
            "quorum",
            {
                "x-queue-type": "quorum",
                "x-overflow": "reject-publish",
                "x-message-ttl": 16000,
                "x-dead-letter-exchange": "celery_delayed_3",
                "x-dead-letter-strategy": "at-least-once",
            },
        ),
    ],
)
def test_queues_have_the_arguments_that_celery_gives_them(
    level: int, queue_type: str, arguments: dict[str, Any]
) -> None:
    assert ladder.queue_arguments(level, queue_type) == arguments


def test_messages_that_came_through_are_recognised() -> None:
    key = ladder.routing_key(2, "celery")
    assert ladder.came_through("celery_delayed_0", key)
    assert ladder.came_through("celery_delayed_delivery", key)
    assert not ladder.came_through("celery_delayed_0", "celery")
    assert not ladder.came_through("celery", key)
