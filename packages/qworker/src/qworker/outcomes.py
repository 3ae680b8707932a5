"""What follows when a request ends: acknowledge, tell monitors, log, and store what no child can store.

Every function ends exactly one request, except `timed_out` for a soft limit.
"""

from __future__ import annotations

import logging
import signal as signals
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from qcore import trace
from qcore.errors import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from qcore.execution.records import Outcome
from qcore.signals import task_revoked

if TYPE_CHECKING:
    from qworker.pools.contract import Pool
    from qworker.request import Request

logger = logging.getLogger("qworker.trace")
INFO, ERROR, CRITICAL = logging.INFO, logging.ERROR, logging.CRITICAL

# Weight of the newest run in a task type's average run time.
NEW_RUN_WEIGHT = 0.1


@frozen
class Failure:
    """Why a run failed, as the child reported it: text, no live exception."""

    exception: str
    traceback: str | None = None
    exc_type: str | None = None
    internal: bool = False

    def __str__(self) -> str:
        return self.traceback or self.exception


def dispatch(request: Request, outcome: Outcome) -> None:
    """Hand the outcome that a child reported to the fitting hook of the request."""
    kind = outcome.kind
    if kind == "succeeded":
        request.on_success(outcome)
    elif kind == "failed":
        request.on_failure(Failure(outcome.summary, outcome.traceback, outcome.exc_type, outcome.internal))
    elif kind == "retried":
        request.on_retry(outcome)
    elif kind == "ignored":
        request.on_ignored(outcome)
    elif kind == "rejected":
        request.on_rejected(outcome)
    else:
        end_as_revoked(request, "revoked", stored=True)
    if outcome.store_error:
        logger.error(
            "The result of task %s[%s] could not be stored: %s. The task itself %s.",
            request.name,
            request.id,
            outcome.store_error,
            kind,
        )


def succeeded(request: Request, outcome: Outcome) -> None:
    """The run returned."""
    strategy = request.strategy
    consumer = strategy.consumer
    request.acknowledge()
    if strategy.remember_success:
        consumer.state.successful.add(request.id)
    send = consumer.send_task_event
    if send is not None:
        send("task-succeeded", uuid=request.id, result=outcome.summary, runtime=outcome.runtime_seconds)
    if logger.isEnabledFor(INFO):
        context = {
            "id": request.id,
            "name": request.headers.get("shadow") or request.name,
            "return_value": outcome.summary,
            "runtime": outcome.runtime_seconds,
            "args": request.argsrepr,
            "kwargs": request.kwargsrepr,
        }
        logger.info(trace.LOG_SUCCESS, context, extra={"data": context})


def failed(request: Request, failure: Failure, send_event: bool = True) -> None:
    """The run raised; the child stored it."""
    task = request.strategy.task
    if request.strategy.acks_late and not _first_set(
        task, "acks_on_failure", "acks_on_failure_or_timeout", True
    ):
        request.reject(requeue=False)
    else:
        request.acknowledge()
    if send_event:
        request.send_event("task-failed", exception=failure.exception, traceback=failure.traceback)
    expected = bool(task.throws) and _is_expected(task.throws, failure.exc_type)
    level = CRITICAL if failure.internal else INFO if expected else ERROR
    if logger.isEnabledFor(level):
        context = _context(request)
        context["exc"] = failure.exception
        context["traceback"] = failure.traceback
        context["description"] = (
            "INTERNAL ERROR" if failure.internal else "raised expected" if expected else "raised unexpected"
        )
        template = trace.LOG_INTERNAL_ERROR if failure.internal else trace.LOG_FAILURE
        if failure.traceback and not expected:
            template = f"{template}\n%(traceback)s"
        logger.log(level, template, context, extra={"data": context})


def retried(request: Request, outcome: Outcome) -> None:
    """The child sent the task again."""
    request.acknowledge()
    request.send_event("task-retried", exception=outcome.summary, traceback=outcome.traceback)
    if logger.isEnabledFor(INFO):
        context = _context(request)
        context["exc"] = outcome.summary
        context["traceback"] = outcome.traceback
        context["description"] = "retry"
        logger.info(trace.LOG_RETRY, context, extra={"data": context})


def ignored(request: Request, outcome: Outcome) -> None:
    """The task raised Ignore."""
    request.acknowledge()
    if logger.isEnabledFor(INFO):
        context = _context(request)
        context["description"] = "ignored"
        logger.info(trace.LOG_IGNORED, context, extra={"data": context})


def rejected(request: Request, outcome: Outcome) -> None:
    """The task raised Reject."""
    request.reject(requeue=outcome.requeue)
    if logger.isEnabledFor(INFO):
        context = _context(request)
        context["exc"] = outcome.summary
        context["description"] = "rejected"
        logger.info(trace.LOG_REJECTED, context, extra={"data": context})


def timed_out(request: Request, soft: bool, limit: float) -> None:
    """A limit has passed; a soft one is raised in the task, a hard one has ended it."""
    if soft:
        logger.warning("Soft time limit (%ss) exceeded for %s", limit, request.humaninfo())
        return
    logger.error("Hard time limit (%ss) exceeded for %s", limit, request.humaninfo())
    exc = TimeLimitExceeded(limit)
    task = request.strategy.task
    if request.strategy.acks_late and not _first_set(
        task, "acks_on_timeout", "acks_on_failure_or_timeout", True
    ):
        request.strategy.consumer.return_lost(request, f"the last time by its time limit of {limit}s")
        return
    _store_failure(request, exc)


def lost(request: Request, pid: int, exitcode: int | None) -> None:
    """The process that ran it died: by a revoke, or by itself."""
    if request.terminating is not None:
        end_as_revoked(request, "terminated", terminated=True, signum=request.terminating)
        return
    strategy = request.strategy
    consumer = strategy.consumer
    exc = WorkerLostError(f"Worker exited prematurely: {describe_exit(exitcode)} Job: {request.tag}.")
    if strategy.acks_late and strategy.task.reject_on_worker_lost and not request.acknowledged:
        logger.error("%s: the process %s that ran it died (%s).", request, pid, describe_exit(exitcode))
        consumer.return_lost(request, f"the last time by {describe_exit(exitcode)}")
        return
    context = _context(request)
    context.update(exc=repr(exc), traceback=None, description="raised unexpected")
    logger.error(trace.LOG_FAILURE, context, extra={"data": context})
    if strategy.task.retry_on_worker_lost and consumer.retry_lost(request, exc):
        return
    _store_failure(request, exc)


def end_as_revoked(
    request: Request,
    reason: str,
    *,
    terminated: bool = False,
    signum: int | None = None,
    expired: bool = False,
    stored: bool = False,
) -> None:
    """End a request that must not run (any more): state REVOKED, event, signal; `stored`: the child did."""
    consumer = request.strategy.consumer
    if stored:
        request.acknowledge()
    else:
        consumer.settle(request, "REVOKED", TaskRevokedError(reason), request.acknowledge)
    request.send_event(
        "task-revoked",
        terminated=terminated,
        signum=None if signum is None else _signal_name(signum),
        expired=expired,
    )
    task_revoked.send(
        sender=request.task, request=request, terminated=terminated, signum=signum, expired=expired
    )
    consumer.state.forget(request)


def cancel(request: Request, pool: Pool, signal: int) -> None:
    """End the run without revoking: its unacknowledged message is delivered again."""
    request.send_event("task-cancelled")
    request.strategy.consumer.state.forget(request)
    pool.terminate_job(request.tag, signal)
    if request.generation == request.strategy.consumer.generation:
        request.reject(requeue=True)


def matches_stamps(request: Request, revoked: Mapping[str, set[Any]]) -> bool:
    """True when a stamp of the request has a value that was revoked."""
    for name, value in request.stamps.items():
        values = revoked.get(name)
        if values and not values.isdisjoint(value if isinstance(value, (list, tuple, set)) else (value,)):
            return True
    return False


def describe_exit(exitcode: int | None) -> str:
    """`signal 9 (SIGKILL)` for -9, `exitcode 1` for 1."""
    if exitcode is None:
        return "exit code unknown"
    if exitcode < 0:
        return f"signal {-exitcode} ({_signal_name(-exitcode)})"
    return f"exitcode {exitcode}"


def _store_failure(request: Request, exc: BaseException) -> None:
    request.strategy.consumer.settle(request, "FAILURE", exc, request.acknowledge)
    request.send_event("task-failed", exception=repr(exc), traceback=None)


def _first_set(task: Any, *names: Any) -> bool:
    """The first of the task's options that is not None; the last argument when all are."""
    for name in names[:-1]:
        value = getattr(task, name, None)
        if value is not None:
            return bool(value)
    return bool(names[-1])


def _is_expected(throws: tuple[type[BaseException], ...], exc_type: str | None) -> bool:
    if not exc_type:
        return False
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in throws} | {cls.__qualname__ for cls in throws}
    return exc_type in names or exc_type.removeprefix("builtins.") in names


def _context(request: Request) -> dict[str, Any]:
    return {
        "id": request.id,
        "name": request.headers.get("shadow") or request.name,
        "args": request.argsrepr,
        "kwargs": request.kwargsrepr,
    }


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return str(number)
