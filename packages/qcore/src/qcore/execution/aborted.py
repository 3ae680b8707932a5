"""Record the end of a job whose body did not run to its end: unknown, undecodable, revoked, expired, killed.

The worker's main process calls this too; it is rare, so it may take its round trips at once.
"""

from __future__ import annotations

import logging
from typing import Any

from qcore import followup, signals, states
from qcore.backend.record import ResultRecord
from qcore.execution.execution import request_of
from qcore.execution.failure import Failure
from qcore.execution.records import Job
from qcore.message import check_body
from qcore.request import Context

logger = logging.getLogger(__name__)


def record_failure(
    app: Any,
    job: Job,
    exc: BaseException,
    state: str = states.FAILURE,
    *,
    hooks: bool = True,
    flush: bool = False,
) -> None:
    """Store `state` with `exc` for the job, and let its chord, chain and errbacks know.

    Args:
        app: the app whose store gets the record.
        job: the delivery; its body is decoded as far as that is possible.
        exc: what the client will see.
        state: FAILURE or REVOKED.
        hooks: call the task's `on_failure` and the signal `task_failure`.
        flush: make it durable before returning; otherwise the next flush does.

    Raises:
        BackendStoreError: with `flush`, when the store stays away.
    """
    task = app.tasks.get_fast(job.name)
    request = _request(app, job)
    backend = task.backend if task is not None else app.backend
    failure = Failure.of(exc)
    traceback = failure.traceback if exc.__traceback__ is not None else None
    if _stores(task, request):
        backend.store(ResultRecord.of(request, state, exc, traceback, extended=app.conf.result_extended))
    if request.chord:
        backend.chord_part(request, state, exc)
    if request.chain:
        followup.fail_chain(app, request, exc, traceback)
    if request.errbacks:
        followup.call_errbacks(app, request, exc, traceback)
    if flush:
        backend.flush()
    if task is not None and hooks and state == states.FAILURE:
        _call_hooks(task, request, failure)


def _stores(task: Any, request: Context) -> bool:
    ignore = request.ignore_result
    if ignore is None:
        ignore = bool(task.ignore_result) if task is not None else False
    return not ignore or bool(task is not None and task.store_errors_even_if_ignored)


def _request(app: Any, job: Job) -> Context:
    """The request, without arguments and workflow when the body cannot be decoded."""
    try:
        payload = app.amqp.codec.decode(job.body, job.content_type, job.content_encoding)
        args, kwargs, embed = check_body(payload)
    except Exception as exc:  # noqa: BLE001 - the body may be the very thing that is broken
        logger.debug("the body of %s[%s] cannot be read: %s", job.name, job.id, exc)
        args, kwargs, embed = [], {}, {}
    return request_of(job, args, kwargs, embed)


def _call_hooks(task: Any, request: Context, failure: Failure) -> None:
    try:
        task.on_failure(failure.exception, request.id, request.args, request.kwargs, failure)
    except Exception:
        logger.exception("on_failure of %s[%s] raised", task.name, request.id)
    if signals.task_failure.receivers:
        signals.task_failure.send(
            sender=task, task_id=request.id, exception=failure.exception, args=request.args, kwargs=request.kwargs,
            traceback=failure.tb, einfo=failure,
        )  # fmt: skip
