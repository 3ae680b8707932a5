"""What a finished task sets in motion: callbacks, the next task of a chain, errbacks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from qcore import states
from qcore.backend.record import ResultRecord
from qcore.canvas import maybe_signature
from qcore.request import Context

logger = logging.getLogger(__name__)


def start_next(app: Any, request: Any, value: Any) -> None:
    """Send the callbacks, in order, and the next task of the chain, each with the result as first argument."""
    origin: dict[str, Any] = {"parent_id": request.id, "root_id": request.root_id or request.id}
    priority = (request.delivery_info or {}).get("priority")
    if priority is not None and app.conf.task_inherit_parent_priority:
        origin["priority"] = priority
    for callback in request.callbacks or ():
        _start(request, maybe_signature(callback, app=app), (value,), origin)
    if request.chain:
        rest = list(request.chain)
        following = maybe_signature(rest.pop(), app=app)
        if rest:
            origin["chain"] = rest
        _start(request, following, (value,), origin)


def _start(request: Any, signature: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Send what follows; what follows an eager run is run eagerly."""
    if request.is_eager:
        signature.apply(args, **options)
    else:
        signature.apply_async(args, **options)


def fail_chain(backend: Any, request: Any, exc: BaseException, traceback: str | None) -> None:
    """Record the failure for every later member of the chain, so that whoever waits for it ends (4CNV-21)."""
    for element in reversed(request.chain or ()):
        for member in _members(element):
            _fail_member(backend, request, member, exc, traceback)


def _members(element: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The signatures with an id of their own in one element of a chain."""
    kind, kwargs = element.get("subtask_type"), element.get("kwargs") or {}
    if kind == "group":
        return [found for task in kwargs.get("tasks") or () for found in _members(task)]
    if kind == "chain":
        return [found for task in kwargs.get("tasks") or () for found in _members(task)]
    if kind == "chord":
        header = kwargs.get("header") or ()
        tasks = header.get("kwargs", {}).get("tasks", ()) if isinstance(header, Mapping) else header
        body = kwargs.get("body")
        return [found for task in (*tasks, *((body,) if body else ())) for found in _members(task)]
    return [element]


def _fail_member(
    backend: Any, request: Any, member: Mapping[str, Any], exc: BaseException, traceback: str | None
) -> None:
    options = member.get("options") or {}
    task_id = options.get("task_id")
    if not task_id:
        return
    context = Context(
        id=task_id,
        task=member.get("task"),
        args=member.get("args"),
        kwargs=member.get("kwargs"),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        chord=options.get("chord"),
        parent_id=request.id,
        root_id=request.root_id,
        reply_to=options.get("reply_to"),
        correlation_id=task_id,
        called_directly=False,
        errbacks=options.get("link_error"),
    )
    backend.store(ResultRecord.of(context, states.FAILURE, exc, traceback))
    if context.chord:
        backend.chord_part(context, states.FAILURE, exc)


def call_errbacks(app: Any, request: Any, exc: BaseException, traceback: str | None) -> None:
    """Call or send each errback, in order; one that raises does not keep the others from running.

    A registered task that is not bound and takes more than one argument is called here with
    `(request, exc, traceback)`; any other is sent with the id of the failed task (4CAL-02).
    """
    for errback in request.errbacks or ():
        signature = maybe_signature(errback, app=app)
        try:
            if is_called_directly(app, signature):
                signature.clone()(request, exc, traceback)
            else:
                origin = {"parent_id": request.id, "root_id": request.root_id or request.id}
                _start(request, signature, (request.id,), origin)
        except Exception:
            logger.exception("errback %s of task %s[%s] failed", signature.task, request.task, request.id)


def is_called_directly(app: Any, signature: Any) -> bool:
    """Whether an errback runs here, as a function, instead of being sent as a task."""
    task = app.tasks.get_fast(signature.task)
    fun = getattr(task, "__wrapped_fun__", None)
    if task is None or fun is None or task.__bound_self__ or inspect.iscoroutinefunction(fun):
        return False
    try:
        parameters = inspect.signature(fun).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(p.kind == p.VAR_POSITIONAL for p in parameters)
