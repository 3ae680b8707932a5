"""What happens to an envelope between the broker and the program: opened, handed back, put aside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from qbrokers import jsoncodec
from qbrokers.batching import DELIVERY_COUNT_HEADER, ETA_PROPERTY
from qbrokers.redis.bases import BaseMessage
from qbrokers.redis.options import Options

REASON_HEADER = "x-dead-letter-reason"
"""Header of a message in a `.dead` queue: why it was put aside."""

DEADLINE_PROPERTY = "x-deadline"
"""Property of a message sent to a queue with `x-message-ttl`: epoch seconds after which it is dropped."""


PRIORITY_MARK = "x-priority"
"""Property of a message that our client sent with a priority: that priority (the claim script looks for
it).
"""


class BadEnvelope(ValueError):
    """The text in a queue is not a message envelope."""


UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What opening an envelope raises when its parts are not what they must be, or are nested too deeply."""


class Message(BaseMessage):  # type: ignore[misc]
    """A message of the Redis transport.

    Args:
        payload: The open envelope.
        channel: Channel that delivered it.
        tag: Tag under which it is held; the envelope's own tag when it is not held.
        raw: The envelope as it was in the queue.
        queue: Queue it was taken from.
    """

    def __init__(
        self,
        payload: dict[str, Any],
        channel: Any = None,
        *,
        tag: str | None = None,
        raw: bytes | None = None,
        queue: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(payload, channel=channel, **kwargs)
        if tag is not None:
            self.delivery_tag = tag
        self.raw = raw
        self.queue = queue


def open_envelope(raw: bytes) -> dict[str, Any]:
    """Decode an envelope and fill in what a delivery tells: count, redelivered, priority as it was given.

    Raises:
        BadEnvelope: It is not the JSON object of a message.
    """
    envelope, headers, properties = _parts(raw)
    if envelope.get("body") is None:
        raise BadEnvelope("no `body`")
    info = properties.setdefault("delivery_info", {})
    again = bool(info.get("redelivered") or headers.get("redelivered"))
    count = headers.get(DELIVERY_COUNT_HEADER)
    if not isinstance(count, int):
        count = 1 if again else 0
        headers[DELIVERY_COUNT_HEADER] = count
    info["redelivered"] = again or count > 0
    info.setdefault("exchange", "")
    info.setdefault("routing_key", "")
    properties["priority"] = _bounded(properties.pop(PRIORITY_MARK, None)) or wire_priority(properties)
    properties.setdefault("delivery_tag", "")
    return envelope


def returned(raw: bytes, *, counted: bool) -> tuple[bytes, int]:
    """The envelope of a delivered message on its way back to its queue.

    Args:
        raw: The envelope as it was taken.
        counted: Whether this delivery counts; not for one that the program never saw.

    Returns:
        The new envelope and its wire priority.

    Raises:
        BadEnvelope: It is not the JSON object of a message.
    """
    envelope, headers, properties = _parts(raw)
    if counted:
        info = properties.setdefault("delivery_info", {})
        count = headers.get(DELIVERY_COUNT_HEADER)
        before = count if isinstance(count, int) else int(bool(info.get("redelivered")))
        headers[DELIVERY_COUNT_HEADER] = before + 1
        headers["redelivered"] = True
        info["redelivered"] = True
    return jsoncodec.encode(envelope), wire_priority(properties)


def with_headers(raw: bytes, changes: Mapping[str, Any]) -> tuple[bytes, int]:
    """The envelope with headers set, or removed where the value is None, and its wire priority; what cannot be
    decoded stays as it is.
    """
    try:
        return _with_headers(raw, changes)
    except (BadEnvelope, RecursionError):
        return raw, 0


def _with_headers(raw: bytes, changes: Mapping[str, Any]) -> tuple[bytes, int]:
    envelope, headers, properties = _parts(raw)
    for name, value in changes.items():
        if value is None:
            headers.pop(name, None)
        else:
            headers[name] = value
    return jsoncodec.encode(envelope), wire_priority(properties)


def _parts(raw: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    try:
        envelope = jsoncodec.decode(raw)
    except RecursionError:
        raise BadEnvelope("nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as exc:
        raise BadEnvelope(f"not JSON: {exc}") from exc
    if not isinstance(envelope, dict):
        raise BadEnvelope(f"a JSON {type(envelope).__name__}, not an object")
    properties = envelope.get("properties")
    if not isinstance(properties, dict):
        raise BadEnvelope("no object `properties`")
    headers = envelope.get("headers")
    if not isinstance(headers, dict):
        headers = envelope["headers"] = {}
    return envelope, headers, properties


def eta_of(envelope: dict[str, Any]) -> float | None:
    """Epoch seconds before which the message should stay in the broker, or None."""
    stamp = envelope["properties"].get(ETA_PROPERTY)
    if isinstance(stamp, int | float):
        return float(stamp) if isfinite(stamp) else None
    eta = envelope["headers"].get("eta")
    if not isinstance(eta, str):
        return None
    try:
        moment = datetime.fromisoformat(eta)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def wire_priority(properties: dict[str, Any]) -> int:
    """The number on the wire, 0 (served first) to 9."""
    return _bounded(properties.get("priority"))


def _bounded(priority: Any) -> int:
    try:
        return max(0, min(9, int(priority or 0)))
    except (TypeError, ValueError, OverflowError):
        return 0


def mark_priority(properties: dict[str, Any], priority: int | None, options: Options) -> None:
    """Write a priority of our API into the properties of a message that is sent.

    Ours: 0, or none given, is normal, and 9 is served first. Stock kombu on Redis: 0 is normal and served
        first, 9 is served last. So normal messages look alike, and one above normal gets the number of a
        step below normal, the higher the earlier, with a mark. Our consumers serve marked messages before
        the normal ones; stock consumers serve them in the right order among themselves, after the normal
        ones.

    Raises:
        ValueError: It is no number.
    """
    properties.pop(PRIORITY_MARK, None)
    try:
        bounded = max(0, min(9, int(priority or 0)))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"the priority of a message must be a number from 0 to 9, not {priority!r}"
        ) from None
    if not bounded or options.highest_priority == 0:
        properties["priority"] = bounded
        return
    first_step = next((step for step in options.priority_steps if step), 0)
    properties["priority"] = min(9, first_step + 9 - bounded) if first_step else 0
    properties[PRIORITY_MARK] = bounded
