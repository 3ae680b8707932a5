"""Run a task here and now, through the steps of a worker; what would be sent is run here, too."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from qcore import states
from qcore.errors import Retry
from qcore.execution.coroutines import run_here
from qcore.execution.execution import Execution, call, enter, leave, prepare_stores, settle
from qcore.execution.records import Job
from qcore.request import Context
from qcore.results import EagerResult


def apply_eagerly(
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    task_id: str,
    link: Any = None,
    link_error: Any = None,
    retries: int = 0,
    throw: bool | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Run `task` to its end, retries included, and return its `EagerResult`.

    Raises:
        Exception: what the task raised, when `throw` (default: setting `task_eager_propagates`) is true.
    """
    options = dict(options or {})
    app = task.app
    throw = app.conf.task_eager_propagates if throw is None else throw
    request = _request(task, args, kwargs, task_id, retries, link, link_error, options)
    run = Execution(app, _job(task, request))
    run.task, run.request, run.backend = task, request, task.backend
    prepare_stores(run)
    run.stores = run.stores and bool(task.store_eager_result)
    try:
        enter(run)
        call(run, await_=run_here)
        outcome = settle(run)
        if run.stores:
            run.backend.flush()
    finally:
        leave(run)
    if run.state == states.RETRY:
        return _next_try(run.value, throw)
    failure = run.failure
    if throw and failure is not None and run.state == states.FAILURE:
        raise failure.exception
    value = failure.exception if failure is not None else run.value
    return EagerResult(
        task_id, value, run.state, traceback=outcome.traceback or (failure.traceback if failure else None),
        name=task.name,
    )  # fmt: skip


def _next_try(retry: Retry, throw: bool) -> Any:
    """The limit of retries was checked when the retry was made; run the next try at once (4RTY-21)."""
    again: Any = retry.sig
    if again is None:
        raise retry
    return again.apply(throw=throw)


def _request(
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    task_id: str,
    retries: int,
    link: Any,
    link_error: Any,
    options: Mapping[str, Any],
) -> Context:
    headers = options.get("headers") or None
    request = Context(headers or {})
    request.update(
        id=task_id,
        task=task.name,
        args=tuple(args),
        kwargs=dict(kwargs),
        retries=retries,
        is_eager=True,
        called_directly=False,
        hostname=socket.gethostname(),
        callbacks=_as_list(link),
        errbacks=_as_list(link_error),
        headers=headers,
        root_id=options.get("root_id") or task_id,
        parent_id=options.get("parent_id"),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        chain=options.get("chain"),
        ignore_result=options.get("ignore_result"),
        replaced_task_nesting=options.get("replaced_task_nesting") or 0,
        timelimit=[
            options.get("time_limit", task.time_limit),
            options.get("soft_time_limit", task.soft_time_limit),
        ],
        logfile=options.get("logfile"),
        loglevel=options.get("loglevel", 0),
        stamped_headers=options.get("stamped_headers"),
        stamps=options.get("stamps"),
        delivery_info={
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
        },
    )
    return request


def _job(task: Any, request: Context) -> Job:
    return Job(
        id=request.id or "", name=task.name, headers={}, body=b"", content_type="", content_encoding="",
        properties={}, delivery_info={}, hostname=request.hostname or "", received=0.0,
    )  # fmt: skip


def _as_list(value: Any) -> list[Any] | None:
    if not value:
        return None
    return list(value) if isinstance(value, (list, tuple)) else [value]
