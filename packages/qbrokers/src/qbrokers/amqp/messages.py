"""Small things about py-amqp's messages."""

from __future__ import annotations

from typing import Any, NamedTuple

from qbrokers.amqp.bases import AmqpMessage
from qbrokers.batching import DELIVERY_COUNT_HEADER, ETA_PROPERTY

# What the broker adds on the way through the delay queues; kept, older servers would take a second way for a loop.
_TRAVEL_HEADERS = ("x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
                   "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason")  # fmt: skip


class Delivered(NamedTuple):
    """A message as it was delivered, and the queue it came from."""

    consumer_tag: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    msg: Any
    queue: str


def without_travel(headers: dict[str, Any]) -> dict[str, Any]:
    """Headers without those that the way through the delay queues has left."""
    return {name: value for name, value in headers.items() if name not in _TRAVEL_HEADERS}


def copy_of(msg: Any, headers: dict[str, Any]) -> Any:
    """A persistent copy for publishing, with further headers and a new count."""
    properties = {k: v for k, v in msg.properties.items() if k not in ("application_headers", ETA_PROPERTY)}
    own = without_travel(msg.properties.get("application_headers") or {})
    own.pop(DELIVERY_COUNT_HEADER, None)
    if "expires" in own:
        # The worker reports an expired task; the broker would drop it, and in the delay queues move it on early.
        properties.pop("expiration", None)
    properties["delivery_mode"] = 2
    return AmqpMessage(msg.body, application_headers={**own, **headers}, **properties)


def name_of(msg: Any, exchange: str, routing_key: str) -> str:
    """How errors call a message."""
    properties = msg.properties
    headers = properties.get("application_headers") or {}
    name = headers.get("id") or properties.get("message_id") or properties.get("correlation_id")
    return f"message {name or '(without id)'} to exchange {exchange!r}, routing key {routing_key!r}"
