"""Record what will never run as failed, so that nobody waits for it for ever."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field

from qcore import refusal, states
from qcore.backend.record import ResultRecord
from qcore.errors import ChordError

from .signatures import Signature, _as_list, as_signature

logger = logging.getLogger(__name__)


@define
class FailedCall:
    """The request that errbacks and the store see of a task that did not run."""

    id: str
    task: str | None
    args: Any = ()
    kwargs: Any = None
    group: str | None = None
    group_index: int | None = None
    chord: Any = None
    root_id: str | None = None
    parent_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    delivery_info: Any = None
    hostname: str | None = None
    retries: int = 0
    ignore_result: Any = None
    stamps: Any = None
    stamped_headers: Any = None
    errbacks: list[Any] = field(factory=list)

    @classmethod
    def of(cls, signature: Signature[Any], task_id: str) -> FailedCall:
        """From a frozen signature."""
        options = signature.options
        return cls(
            id=task_id,
            task=signature.task,
            args=signature.args,
            kwargs=signature.kwargs,
            group=options.get("group_id"),
            group_index=options.get("group_index"),
            chord=options.get("chord"),
            root_id=options.get("root_id"),
            parent_id=options.get("parent_id"),
            reply_to=options.get("reply_to"),
            correlation_id=task_id,
            delivery_info={"redelivered": True},  # guarded: it may have run after all
            errbacks=_as_list(options.get("link_error")),
        )


def fail(signature: Signature[Any], exc: BaseException, traceback: str | None = None) -> None:
    """Store the tasks of `signature`, and of the chain behind it, as FAILURE, and call its errbacks.

    The errbacks of what would have run first are called; those behind only learn that they fail. For a group
    they are called per member, and with the error that made the chord fail.
    """
    app = signature.app
    if signature.subtask_type == "group" and isinstance(exc, ChordError) and exc.__cause__ is not None:
        exc = exc.__cause__
    first = True
    for member in _members(signature):
        task_id = member.options.get("task_id")
        if task_id:
            call = FailedCall.of(member, task_id)
            if first or signature.subtask_type == "group":
                call_errbacks(app, call, exc, traceback)
            _store(app, call, exc, traceback)
        first = False
    fail_followers(app, signature.options.get("chain"), exc, traceback)


def fail_followers(app: Any, rest: Sequence[Any] | None, exc: BaseException, traceback: str | None) -> None:
    """Store every later member of a chain as FAILURE, so that whoever waits for it ends (4CNV-21).

    Args:
        rest: the remaining chain as it travels: the next task is the last element.
    """
    for follower in reversed(rest or ()):
        for member in _members(as_signature(follower, app)):
            if member.options.get("task_id"):
                _store(app, FailedCall.of(member, member.options["task_id"]), exc, traceback)


def fail_eagerly(signature: Signature[Any], task_id: str, exc: BaseException) -> None:
    """Call the errbacks of a body whose header failed in an eager run."""
    first = next(_members(signature), signature)
    call_errbacks(signature.app, FailedCall.of(first, task_id), exc, None, eager=True)


def _members(signature: Any) -> Iterator[Signature[Any]]:
    """The plain tasks of a workflow; the one whose errbacks count comes first."""
    if signature.subtask_type == "chord":
        yield from _members(signature.body)
        yield from _members(signature.tasks)
    elif signature.subtask_type in ("chain", "group"):
        for task in signature.tasks:
            yield from _members(task)
    else:
        yield signature


def _store(app: Any, call: FailedCall, exc: BaseException, traceback: str | None) -> None:
    app.backend.store(ResultRecord.of(call, states.FAILURE, exc, traceback))
    if call.chord:
        app.backend.chord_part(call, states.FAILURE, exc)


def call_errbacks(
    app: Any, request: Any, exc: BaseException, traceback: str | None, eager: bool = False
) -> None:
    """Call or send each of `request.errbacks`; one that raises does not keep the others from running.

    A registered task that is not bound and takes several arguments is called here with
    `(request, exc, traceback)`; any other is sent with the id of the failed task (4CAL-02).
    """
    for errback in request.errbacks or ():
        signature = as_signature(errback, app)
        try:
            if _is_called_here(app, signature):
                signature.clone()(request, exc, traceback)
            elif eager:
                signature.apply((request.id,))
            else:
                with refusal.following():
                    signature.apply_async(
                        (request.id,), parent_id=request.id, root_id=request.root_id or request.id
                    )
        except Exception:
            logger.exception("errback %s of task %s[%s] failed", signature.task, request.task, request.id)


def _is_called_here(app: Any, signature: Signature[Any]) -> bool:
    task = app.tasks.get(signature.task)
    fun = getattr(task, "__wrapped_fun__", None)
    if task is None or fun is None or task.__bound_self__ or inspect.iscoroutinefunction(fun):
        return False
    try:
        parameters = inspect.signature(fun).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(p.kind == p.VAR_POSITIONAL for p in parameters)
