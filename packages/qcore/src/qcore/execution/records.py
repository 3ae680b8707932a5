"""What crosses the border between the worker and the place where a task runs: plain values only."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

OutcomeKind = Literal["succeeded", "failed", "retried", "ignored", "rejected", "revoked"]


class Job(NamedTuple):
    """One delivery, as the worker hands it to a pool child; the body is still encoded."""

    id: str
    name: str
    headers: dict[str, Any]
    """Protocol 2 headers (a protocol 1 message was converted before)."""
    body: bytes
    content_type: str
    content_encoding: str
    properties: dict[str, Any]
    """`correlation_id`, `reply_to`, `priority`, `delivery_mode`."""
    delivery_info: dict[str, Any]
    """`exchange`, `routing_key`, `redelivered`, `priority`."""
    hostname: str
    """Node name of the worker that took the message."""
    received: float
    """Epoch seconds."""


class Outcome(NamedTuple):
    """What became of one job."""

    id: str
    kind: OutcomeKind
    runtime_seconds: float = 0.0
    summary: str = ""
    """Text form of the result or of the exception, at most 1024 characters."""
    traceback: str | None = None
    requeue: bool = False
    """Of `rejected`: whether the message goes back to its queue."""
    exc_type: str | None = None
    """Dotted path of the exception's class."""
    internal: bool = False
    """The error is not the task's: foreign code around it (handler, hook) or ours failed."""
    eta: float | None = None
    """Of `retried`: epoch seconds of the next try."""
    store_error: str | None = None
    """Why the result could not be stored; the outcome itself stands."""
