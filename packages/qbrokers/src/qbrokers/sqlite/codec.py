"""A kombu message as the columns of a row, and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from qbrokers import jsoncodec
from qbrokers.batching import DELIVERY_COUNT_HEADER, ETA_PROPERTY

MAX_PRIORITY = 9

UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What `decode` raises when the text is not what `encode` writes, or has a type object with an impossible value."""


class Row(NamedTuple):
    """What is stored of a message."""

    rank: int
    due: float  # epoch seconds; 0 = at once
    expires: float | None  # epoch seconds
    head: str  # JSON: everything but the body
    body: bytes


def encode(message: dict[str, Any], exchange: str, routing_key: str) -> Row:
    """Make the row of what `prepare_message` returned.

    Raises:
        TypeError: The body is neither text nor bytes, or a header cannot be written as JSON.
        ValueError: The priority is no number.
    """
    properties = message["properties"]
    headers = message["headers"]
    body = message["body"]
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        if not isinstance(body, bytearray | memoryview):
            raise TypeError(
                f"a message body must be text or bytes, not {type(body).__name__}; serialize it first"
            )
        body = bytes(body)
    info = properties.pop("delivery_info", None)
    parts = [message["content-type"], message["content-encoding"], headers, properties, exchange, routing_key]
    head = jsoncodec.encode(parts).decode()
    if info is not None:
        properties["delivery_info"] = info
    return Row(
        _rank(properties.get("priority")),
        _due(properties, headers),
        _expires(properties, headers),
        head,
        body,
    )


def decode(head: str, body: bytes, tag: int, consumer_tag: str, earlier_deliveries: int) -> dict[str, Any]:
    """Make the payload that `Message` takes from a row.

    Args:
        head: As `encode` made it.
        body: The encoded body.
        tag: The delivery tag.
        consumer_tag: Empty for a message that was asked for without a consumer.
        earlier_deliveries: How often it was delivered before.
    """
    content_type, content_encoding, headers, properties, exchange, routing_key = jsoncodec.decode(head)
    headers[DELIVERY_COUNT_HEADER] = earlier_deliveries
    properties["delivery_tag"] = tag
    properties["delivery_info"] = {
        "exchange": exchange,
        "routing_key": routing_key,
        "redelivered": earlier_deliveries > 0,
        "priority": properties.get("priority"),
        "consumer_tag": consumer_tag,
    }
    return {
        "body": body,
        "content-type": content_type,
        "content-encoding": content_encoding,
        "headers": headers,
        "properties": properties,
    }


def with_headers(head: str, changes: Mapping[str, Any]) -> str:
    """Return `head` with headers set, or removed where the value is None; what cannot be read stays as it is."""
    try:
        parts = jsoncodec.decode(head)
        for name, value in changes.items():
            if value is None:
                parts[2].pop(name, None)
            else:
                parts[2][name] = value
        return jsoncodec.encode(parts).decode()
    except UNREADABLE:
        return head


def _rank(priority: Any) -> int:
    try:
        return MAX_PRIORITY - max(0, min(int(priority or 0), MAX_PRIORITY))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"the priority of a message must be a number from 0 to {MAX_PRIORITY}, not {priority!r}"
        ) from None


def _due(properties: dict[str, Any], headers: dict[str, Any]) -> float:
    stamp = properties.get(ETA_PROPERTY)
    if stamp is not None:
        return float(stamp)
    eta = headers.get("eta")
    if not isinstance(eta, str):
        return 0.0
    try:
        moment = datetime.fromisoformat(eta)
    except ValueError:
        # The consumer knows better what to do with it, so it is delivered.
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _expires(properties: dict[str, Any], headers: dict[str, Any]) -> float | None:
    expiration = properties.get("expiration")
    # A task that says itself when it expires is delivered, so that its consumer can report it as expired;
    # a message that silently vanished would leave its sender waiting for ever.
    if expiration in (None, "") or headers.get("expires"):
        return None
    try:
        return time.time() + float(expiration) / 1000
    except (TypeError, ValueError):
        return None
