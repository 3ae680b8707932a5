"""One execution as a record, and the steps that carry it from the message to its outcome.

```
resolve -> decode -> enter -> call -> settle -> leave
              (body)  (request, hooks, STARTED)  (result, links, chord, hooks)
```

Every step takes the record and changes it; `qcore.execution.runner` and `qcore.execution.eager` string them
together. The order within `enter` and `settle` is that of the acceptance lines 4TCL-14 and 4TCL-15.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from qcore import current, followup, signals, states
from qcore.backend.record import ResultRecord
from qcore.errors import Ignore, NotRegistered, Reject, Retry
from qcore.execution.coroutines import await_body, is_coroutine
from qcore.execution.failure import Failure
from qcore.execution.records import Job, Outcome
from qcore.message import check_body, short_repr
from qcore.request import Context, user_headers
from qcore.task import Task

logger = logging.getLogger(__name__)

Guard = Callable[[], AbstractContextManager[Any]]


class Execution:
    """The state of one run; the steps fill it in."""

    __slots__ = (
        "app", "backend", "failure", "job", "outbox", "request", "started", "state", "stores", "task", "token", "value",
    )  # fmt: skip

    def __init__(self, app: Any, job: Job, outbox: Any = None) -> None:
        self.app = app
        self.job = job
        self.outbox = outbox
        self.task: Any = None
        self.request: Any = None
        self.backend: Any = None
        self.stores = False
        """Whether states of this run are stored."""
        self.state = states.PENDING
        self.value: Any = None
        self.failure: Failure | None = None
        self.started = 0.0
        """Monotonic seconds."""
        self.token: Any = None


# --- before the body ------------------------------------------------------------------------------


def resolve(run: Execution) -> None:
    """Find the task by name; raises `NotRegistered`."""
    name = run.job.name
    task = run.app.tasks.get_fast(name)
    if task is None:
        raise NotRegistered(name)
    run.task = task
    run.backend = task.backend


def decode(run: Execution) -> None:
    """Decode the body and make the request.

    Raises:
        kombu.exceptions.DecodeError, kombu.exceptions.ContentDisallowed: the body cannot be read.
        MalformedMessage: it is not `[args, kwargs, embed]`.
    """
    job = run.job
    payload = run.app.amqp.codec.decode(job.body, job.content_type, job.content_encoding)
    args, kwargs, embed = check_body(payload)
    run.request = request_of(job, args, kwargs, embed)
    prepare_stores(run)


def prepare_stores(run: Execution) -> None:
    """Decide whether the states of this run are stored."""
    ignore = run.request.ignore_result
    run.stores = not (run.task.ignore_result if ignore is None else ignore)


def request_of(job: Job, args: Any, kwargs: Any, embed: dict[str, Any]) -> Context:
    """The `Context` of a message."""
    headers, properties, info = job.headers, job.properties, job.delivery_info
    request = Context.__new__(Context)
    fields = request.__dict__
    fields.update(headers)
    if fields.get("retries") is None:
        fields["retries"] = 0
    if fields.get("replaced_task_nesting") is None:
        fields["replaced_task_nesting"] = 0
    fields["args"] = args
    fields["kwargs"] = kwargs
    if embed:
        fields["callbacks"] = embed.get("callbacks")
        fields["errbacks"] = embed.get("errbacks")
        fields["chain"] = embed.get("chain")
        fields["chord"] = embed.get("chord")
    fields["called_directly"] = False
    fields["hostname"] = job.hostname
    fields["reply_to"] = properties.get("reply_to")
    fields["correlation_id"] = properties.get("correlation_id")
    fields["properties"] = properties
    fields["headers"] = user_headers(headers, headers.get("stamped_headers"))
    fields["delivery_info"] = {
        "exchange": info.get("exchange"),
        "routing_key": info.get("routing_key"),
        "priority": properties.get("priority"),
        "redelivered": bool(info.get("redelivered") or headers.get("redelivered")),
    }
    return request


def enter(run: Execution) -> None:
    """Make the run the current one, tell that it starts, run the `before_start` hook."""
    task, request = run.task, run.request
    run.token = current.push_task(task, request)
    run.started = time.monotonic()
    if signals.task_prerun.receivers:
        signals.task_prerun.send(
            sender=task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs
        )
    if run.stores and task.track_started and not request.is_eager:
        store(run, states.STARTED, {"pid": os.getpid(), "hostname": request.hostname})
        run.backend.flush()


# --- the body ---------------------------------------------------------------------------------------


def call(run: Execution, guard: Guard = nullcontext, await_: Callable[[Any], Any] | None = None) -> None:
    """Run the body; whatever it raises becomes the state of the run.

    Args:
        guard: marks the stretch in which a soft time limit may be raised.
        await_: runs the coroutine of an `async def` body to its end.
    """
    task, request = run.task, run.request
    try:
        with guard():
            if type(task).before_start is not Task.before_start:
                task.before_start(request.id, request.args, request.kwargs)
            body = task if overrides_call(task) else task.run
            value = body(*request.args, **request.kwargs)
            if await_ is not None and is_coroutine(value):
                value = await_(value)
    except BaseException as exc:  # noqa: BLE001 - task code may raise anything; it decides the state only
        raised(run, exc)
    else:
        returned(run, value)


async def acall(run: Execution, guard: Guard = nullcontext) -> None:
    """`call` on an event loop: coroutines are awaited, plain functions run in a thread."""
    task, request = run.task, run.request
    try:
        with guard():
            if type(task).before_start is not Task.before_start:
                task.before_start(request.id, request.args, request.kwargs)
            body = task if overrides_call(task) else task.run
            value = await await_body(task.run, body, request.args, request.kwargs)
    except BaseException as exc:  # noqa: BLE001 - task code may raise anything; it decides the state only
        raised(run, exc)
    else:
        returned(run, value)


def overrides_call(task: Any) -> bool:
    """Whether a base class has its own `__call__`, which then stands around the body."""
    return type(task).__call__.__module__ != "qcore.task"


def returned(run: Execution, value: Any) -> None:
    """The body returned."""
    if run.task.pydantic:
        from qcore.models import dump_result

        value = dump_result(run.task, value)
    run.state, run.value = states.SUCCESS, value


def raised(run: Execution, exc: BaseException) -> None:
    """The body raised: a predicate sets its own state, everything else is a failure."""
    run.value = exc
    if isinstance(exc, Retry):
        run.state = states.RETRY
        run.failure = Failure.of(exc.exc or exc, cut=2) if exc.exc is not None else Failure.of(exc, cut=2)
    elif isinstance(exc, Ignore):
        run.state = states.IGNORED
    elif isinstance(exc, Reject):
        run.state = states.REJECTED
        run.failure = Failure.of(exc, cut=2)
    else:
        run.state = states.FAILURE
        run.failure = Failure.of(exc, cut=2)


# --- after the body ---------------------------------------------------------------------------------


def settle(run: Execution) -> Outcome:
    """Store the state, start what follows, run the hooks; the outcome tells the worker."""
    runtime = time.monotonic() - run.started
    try:
        outcome = _SETTLE[run.state](run, runtime)
    except Exception as exc:  # noqa: BLE001 - a hook or the encoder failed: the task fails, the worker lives
        outcome = internal_error(run, exc, runtime)
    _after(run)
    return outcome


def leave(run: Execution) -> None:
    """The run is not the current one any more."""
    if run.token is not None:
        current.pop_task(run.token)
        run.token = None


def _succeed(run: Execution, runtime: float) -> Outcome:
    task, request, value = run.task, run.request, run.value
    if request.callbacks or request.chain:
        with run.app.amqp.producer.collect_into(run.outbox):
            followup.start_next(run.app, request, value)
    if run.stores:
        store(run, states.SUCCESS, value)
    if request.chord:
        run.backend.chord_part(request, states.SUCCESS, value)
    if type(task).on_success is not Task.on_success:
        try:
            task.on_success(value, request.id, request.args, request.kwargs)
        except Exception:
            logger.exception("on_success of %s[%s] raised; the task has succeeded", task.name, request.id)
    if signals.task_success.receivers:
        signals.task_success.send(sender=task, result=value, runtime=runtime)
    return Outcome(request.id, "succeeded", runtime, short_repr(value, task.resultrepr_maxsize))


def _fail(run: Execution, runtime: float) -> Outcome:
    task, request, failure = run.task, run.request, run.failure
    assert failure is not None
    if run.stores or task.store_errors_even_if_ignored:
        store(run, states.FAILURE, failure.exception, failure.traceback)
    follow_failure(run, failure)
    task.on_failure(failure.exception, request.id, request.args, request.kwargs, failure)
    if signals.task_failure.receivers:
        signals.task_failure.send(
            sender=task,
            task_id=request.id,
            exception=failure.exception,
            args=request.args,
            kwargs=request.kwargs,
            traceback=failure.exception.__traceback__,
            einfo=failure,
        )
    expected = bool(task.throws) and isinstance(failure.exception, tuple(task.throws))
    return Outcome(
        request.id,
        "failed",
        runtime,
        short_repr(failure.exception),
        None if expected else failure.traceback,
        exc_type=failure.path,
    )


def follow_failure(run: Execution, failure: Failure) -> None:
    """What a failure means for the workflow: the chord counts it, the chain ends, errbacks are called."""
    request = run.request
    if request.chord:
        run.backend.chord_part(request, states.FAILURE, failure.exception)
    if request.chain:
        followup.fail_chain(run.app, request, failure.exception, failure.traceback)
    if request.errbacks:
        with run.app.amqp.producer.collect_into(run.outbox):
            followup.call_errbacks(run.app, request, failure.exception, failure.traceback)


def _retry(run: Execution, runtime: float) -> Outcome:
    task, request, failure, retry = run.task, run.request, run.failure, run.value
    assert failure is not None
    if run.stores:
        store(run, states.RETRY, retry.exc or retry, failure.traceback)
    task.on_retry(retry.exc or retry, request.id, request.args, request.kwargs, failure)
    if signals.task_retry.receivers:
        signals.task_retry.send(sender=task, request=request, reason=retry, einfo=failure)
    return Outcome(
        request.id, "retried", runtime, str(retry), failure.traceback, exc_type=failure.path, eta=_when(retry)
    )


def _when(retry: Retry) -> float | None:
    when = retry.when
    if isinstance(when, (int, float)):
        return time.time() + when
    return when.timestamp() if when is not None else None


def _ignore(run: Execution, runtime: float) -> Outcome:
    request = run.request
    if request.chord and not request.replaced:
        run.backend.chord_part(request, states.IGNORED, None)
    return Outcome(request.id, "ignored", runtime)


def _reject(run: Execution, runtime: float) -> Outcome:
    task, request, reject, failure = run.task, run.request, run.value, run.failure
    assert failure is not None
    if not reject.requeue:
        exc = reject.reason if isinstance(reject.reason, BaseException) else reject
        if run.stores or task.store_errors_even_if_ignored:
            store(run, states.FAILURE, exc, failure.traceback)
        follow_failure(run, failure)
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=task, task_id=request.id, exception=exc, args=request.args, kwargs=request.kwargs,
                traceback=reject.__traceback__, einfo=failure,
            )  # fmt: skip
    return Outcome(
        request.id, "rejected", runtime, short_repr(reject.reason), None, bool(reject.requeue), failure.path
    )


_SETTLE: dict[str, Callable[[Execution, float], Outcome]] = {
    states.SUCCESS: _succeed,
    states.FAILURE: _fail,
    states.RETRY: _retry,
    states.IGNORED: _ignore,
    states.REJECTED: _reject,
}


def _after(run: Execution) -> None:
    task, request = run.task, run.request
    if run.state in states.READY_STATES and type(task).after_return is not Task.after_return:
        try:
            task.after_return(run.state, run.value, request.id, request.args, request.kwargs, None)
        except Exception:
            logger.exception("after_return of %s[%s] raised", task.name, request.id)
    if signals.task_postrun.receivers:
        signals.task_postrun.send(
            sender=task,
            task_id=request.id,
            task=task,
            args=request.args,
            kwargs=request.kwargs,
            retval=run.value,
            state=run.state,
        )


def internal_error(run: Execution, exc: BaseException, runtime: float = 0.0) -> Outcome:
    """Something around the body failed: record FAILURE unless SUCCESS is stored, and say so loudly."""
    failure = Failure.of(exc)
    request, task = run.request, run.task
    if signals.task_internal_error.receivers:
        signals.task_internal_error.send(
            sender=task, task_id=run.job.id, args=request.args, kwargs=request.kwargs, request=request,
            exception=exc, traceback=exc.__traceback__, einfo=failure,
        )  # fmt: skip
    run.state, run.value, run.failure = states.FAILURE, exc, failure
    try:
        if run.stores or task.store_errors_even_if_ignored:
            store(run, states.FAILURE, exc, failure.traceback)
        follow_failure(run, failure)
    except Exception:
        logger.exception("cannot record the failure of %s[%s]", task.name, run.job.id)
    return Outcome(
        run.job.id,
        "failed",
        runtime,
        short_repr(exc),
        failure.traceback,
        exc_type=failure.path,
        internal=True,
    )


def store(run: Execution, state: str, result: Any, traceback: str | None = None) -> None:
    """Give the store one record of this run."""
    record = ResultRecord.of(run.request, state, result, traceback, extended=run.app.conf.result_extended)
    run.backend.store(record)
