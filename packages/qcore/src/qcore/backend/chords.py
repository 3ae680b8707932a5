"""The end of a chord: the body is sent, or fails with the header task that failed first."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from qcore import refusal, states
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
            raise dependency_error(task_id, exc)
    return result


def dependency_error(task_id: str, exc: BaseException) -> ChordError:
    """The error of a body whose header task `task_id` raised `exc`."""
    error = ChordError(f"Dependency {task_id} raised {safe_repr(exc)}")
    error.__cause__ = exc
    return error


def arranged(group: Any, parts: Iterable[Sequence[Any]]) -> list[Any]:
    """The values of the parts `[1, task id, state, result]` in the shape of the saved group tuple.

    Raises:
        ChordError: a part failed.
    """
    values = {part[1]: value_of_part(part[1], part[2], part[3]) for part in parts}
    return [shaped(member, values) for member in group[1]]


def shaped(value: Any, values: Mapping[str, Any]) -> Any:
    """`values` by task id, arranged as the members of the result tuple `value` are."""
    head, members = value
    if members is None:
        return values[head[0] if isinstance(head, (list, tuple)) else head]
    return [shaped(member, values) for member in members]


def send_body(app: Any, body: Mapping[str, Any], values: Sequence[Any]) -> None:
    """Send `body` with the header's values as its argument; a body that cannot be sent fails.

    Publishing is not held back, so that the chord's books are not closed before the body is with the broker.
    """
    signature = app.signature(body)
    try:
        with _at_once(app), refusal.following():
            signature.apply_async((list(values),))
    except Exception as exc:  # the body must not stay pending for ever, whatever went wrong
        logger.exception("the body of chord %s cannot be sent; it is marked as failed", signature.id)
        fail_body(app, body, ChordError(f"Callback error: {safe_repr(exc)}"))


def fail_body(app: Any, body: Mapping[str, Any], error: ChordError) -> None:
    """Store the body, and what follows it, as failed, and call its errbacks."""
    with _at_once(app):
        app.fail_workflow(body, error)
    app.backend.flush()


def unlock(
    task: Any,
    group_id: str,
    callback: Mapping[str, Any],
    interval: float | None = None,
    max_retries: int | None = None,
    result: Any = None,
) -> None:
    """The work of `celery.chord_unlock` (W18-02): start the body once every header task is over.

    Args:
        task: the running built-in task; it is retried while header tasks are not over.
        group_id: id of the header.
        callback: signature of the body.
        interval: seconds between looks; default `result_chord_retry_interval`.
        max_retries: looks before the chord fails; None for no limit.
        result: tuples of the header's tasks.

    Raises:
        Retry: some are not over yet.
    """
    app = task.app
    members = [_member(value) for value in result or ()]
    wanted = [task_id for member in members for task_id in leaf_ids(member)]
    records = app.backend.get_many(wanted)
    failed = [r for r in records.values() if r.status in states.PROPAGATE_STATES]
    if failed:
        first = min(failed, key=lambda r: r.date_done.timestamp() if r.date_done else 0.0)
        fail_body(app, callback, dependency_error(first.task_id, from_wire(first.result)))
        return
    if any(task_id not in records or not records[task_id].ready for task_id in wanted):
        pause = app.conf.result_chord_retry_interval if interval is None else interval
        if max_retries is not None and (task.request.retries or 0) >= max_retries:
            fail_body(app, callback, ChordError(f"the header of chord {group_id} was not over in time"))
            return
        raise task.retry(countdown=pause, max_retries=max_retries)
    values = {task_id: record.result for task_id, record in records.items()}
    send_body(app, callback, [shaped(member, values) for member in members])


def _member(value: Any) -> Any:
    """A result tuple; a bare id, which old clients send, becomes one."""
    return ((value, None), None) if isinstance(value, str) else value


def leaf_ids(value: Any) -> list[str]:
    """The task ids below a result tuple, in order."""
    head, members = value
    if members is None:
        return [head[0] if isinstance(head, (list, tuple)) else head]
    return [task_id for member in members for task_id in leaf_ids(member)]


def _at_once(app: Any) -> AbstractContextManager[Any]:
    amqp = getattr(app, "amqp", None)
    if amqp is None:
        return nullcontext()
    scope: AbstractContextManager[Any] = amqp.producer.collect_into(None)
    return scope
