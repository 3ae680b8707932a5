"""The end of a chord: the body is sent, or fails with the header task that failed first."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from qcore import states
from qcore.errors import ChordError

from .exceptions import from_wire, safe_repr

logger = logging.getLogger(__name__)


def value_of_part(task_id: str, state: str, result: Any) -> Any:
    """The value that a header task gives to the body.

    Raises:
        ChordError: the task failed or was revoked; the cause is its exception.
    """
    if state in states.EXCEPTION_STATES:
        exc = from_wire(result)
        if state in states.PROPAGATE_STATES:
            raise dependency_error(task_id, exc) from exc
    return result


def dependency_error(task_id: str, exc: BaseException) -> ChordError:
    """The error of a body whose header task `task_id` raised `exc`."""
    return ChordError(f"Dependency {task_id} raised {safe_repr(exc)}")


def arranged(group: Any, parts: Iterable[Sequence[Any]]) -> list[Any]:
    """The values of the parts `[1, task id, state, result]` in the shape of the saved group tuple.

    Raises:
        ChordError: a part failed.
    """
    values = {part[1]: value_of_part(part[1], part[2], part[3]) for part in parts}
    return [_shaped(member, values) for member in group[1]]


def _shaped(value: Any, values: Mapping[str, Any]) -> Any:
    head, members = value
    if members is None:
        return values[head[0] if isinstance(head, (list, tuple)) else head]
    return [_shaped(member, values) for member in members]


def send_body(app: Any, body: Mapping[str, Any], values: Sequence[Any]) -> None:
    """Send `body` with the header's values as its argument; a body that cannot be sent fails.

    Publishing is not held back, so that the chord's books are not closed before the body is with the broker.
    """
    signature = app.signature(body)
    try:
        with _at_once(app):
            signature.apply_async((list(values),))
    except Exception as exc:  # the body must not stay pending for ever, whatever went wrong
        logger.exception("the body of chord %s cannot be sent; it is marked as failed", signature.id)
        fail_body(app, body, ChordError(f"Callback error: {safe_repr(exc)}"))


def fail_body(app: Any, body: Mapping[str, Any], error: ChordError) -> None:
    """Store the body, and what follows it, as failed, and call its errbacks."""
    with _at_once(app):
        app.signature(body).fail(error)


def _at_once(app: Any) -> AbstractContextManager[Any]:
    amqp = getattr(app, "amqp", None)
    if amqp is None:
        return nullcontext()
    scope: AbstractContextManager[Any] = amqp.producer.collect_into(None)
    return scope
