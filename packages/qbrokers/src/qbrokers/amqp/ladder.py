"""Delayed delivery with the means of RabbitMQ: a ladder of queues whose messages move on after a time.

Level n keeps a message for 2**n seconds. A routing key of 28 binary digits says which levels a message visits; the last
exchange brings it to its queue. Names, arguments and bindings are those that Celery 5.5 and newer declare, so
one ladder serves both.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

LEVELS = 28
FIRST_EXCHANGE = "celery_delayed_27"
LAST_EXCHANGE = "celery_delayed_delivery"
LONGEST_DELAY_SECONDS = 2**LEVELS - 1

_DIGITS = re.compile(r"(?:[01]\.){28}")
_LONGEST_KEY = 255


def level_name(level: int) -> str:
    """Name of a level's exchange and of its queue."""
    return f"celery_delayed_{level}"


def address_of(queue: str) -> str:
    """The part of a routing key that means a queue: its name where that is one word.

    A dot in it would let the binding `#.<name>` of another queue match, so such a name is quoted.
    """
    if "." not in queue and not {"*", "#"} & set(queue):
        return queue
    return "queue:" + quote(queue, safe="").replace(".", "%2E")


def routing_key(delay_seconds: int, key: str) -> str:
    """The key under which a message enters the ladder.

    Args:
        delay_seconds: At least 0; longer delays than the ladder's are cut to it.
        key: What the last exchange routes by.

    Raises:
        ValueError: The key is longer than AMQP allows.
    """
    delay = min(max(delay_seconds, 0), LONGEST_DELAY_SECONDS)
    found = ".".join(f"{delay:0{LEVELS}b}") + "." + plain_key(key)
    if len(found.encode()) > _LONGEST_KEY:
        raise ValueError(f"{key!r} is too long for delayed delivery")
    return found


def plain_key(key: str) -> str:
    """A routing key without the ladder's digits."""
    return _DIGITS.sub("", key, count=1) if _DIGITS.match(key) else key


def came_through(exchange: str, key: str) -> bool:
    """Whether a message with this address has been in the delay queues.

    Its exchange is the one that its last queue, of whichever level, has handed it to.
    """
    return exchange.startswith("celery_delayed_") and _DIGITS.match(key) is not None


def binding_key(key: str) -> str:
    """The key by which Celery binds a queue to the last exchange."""
    return key if key.startswith("#") else f"#.{key}"


def exact_binding_key(queue: str) -> str:
    """The key by which we do: it lets nothing in but what was sent to `address_of(queue)`."""
    return "*." * LEVELS + address_of(queue)


def declare(channel: Any, queue_type: str) -> None:
    """Make what is missing of the ladder; the last exchange of the road comes last, see `exists`."""
    channel.exchange_declare(LAST_EXCHANGE, "topic", durable=True, auto_delete=False)
    for level in range(LEVELS):
        channel.exchange_declare(level_name(level), "topic", durable=True, auto_delete=False)
        channel.queue_declare(
            level_name(level),
            durable=True,
            auto_delete=False,
            arguments=queue_arguments(level, queue_type),
        )
        below = level_name(level - 1) if level else LAST_EXCHANGE
        # The digit of this level is the (28 - level)th.
        before = "*." * (LEVELS - 1 - level)
        channel.queue_bind(level_name(level), level_name(level), f"{before}1.#")
        channel.exchange_bind(below, level_name(level), f"{before}0.#")


def queue_arguments(level: int, queue_type: str) -> dict[str, Any]:
    """The arguments of a level's queue."""
    arguments: dict[str, Any] = {
        "x-queue-type": queue_type,
        "x-overflow": "reject-publish",
        "x-message-ttl": 2**level * 1000,
        "x-dead-letter-exchange": level_name(level - 1) if level else LAST_EXCHANGE,
    }
    if queue_type == "quorum":
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments
