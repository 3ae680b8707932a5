"""The way of one task type through the worker: from message to pool.

A strategy is made per task type when the consumer starts, and called with each message of that type. Everything that
is the same for all of them (limits, options, classes) is looked up once.
"""

from __future__ import annotations

import logging
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qcore import trace
from qcore.message import MalformedMessage, check_stamps
from qcore.signals import task_received
from qworker import outcomes
from qworker.request import Request, epoch_seconds
from qworker.state import RESERVED, SCHEDULED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)
INFO, DEBUG = logging.INFO, logging.DEBUG


class TaskStrategy:
    """Takes the messages of one task type.

    Attributes:
        limits: `(hard, soft)` seconds for messages that bring none.
        average_seconds: Mean run time; 0.0 until the first run.
        runs: Number of runs seen.
    """

    __slots__ = (
        "acks_late",
        "app",
        "average_seconds",
        "consumer",
        "deduplicate",
        "limits",
        "name",
        "remember_success",
        "request_class",
        "runs",
        "task",
    )

    def __init__(self, task: Any, app: Any, consumer: Consumer) -> None:
        self.task = task
        self.name: str = task.name
        self.app = app
        self.consumer = consumer
        self.request_class = load_class(getattr(task, "Request", None), Request)
        self.average_seconds = 0.0
        self.runs = 0
        self.acks_late = bool(task.acks_late)
        self.deduplicate = bool(self.acks_late and app.conf.worker_deduplicate_successful_tasks)
        self.remember_success = self.deduplicate
        self.limits: tuple[float | None, float | None] = (None, None)
        self.refresh_limits()

    def refresh_limits(self) -> None:
        """Read the time limits of the task again, after they were changed."""
        hard, soft = self.consumer.default_limits
        task = self.task
        self.limits = (
            task.time_limit if task.time_limit is not None else hard,
            task.soft_time_limit if task.soft_time_limit is not None else soft,
        )

    def __call__(
        self, message: Any, headers: dict[str, Any] | None = None, body: bytes | None = None
    ) -> None:
        """Admit, hold or discard one message. `headers` and `body` are those of a converted one.

        Hot path: `integration/worker/bench_parent.py` measures it.

        Raises:
            MalformedMessage: the headers make no sense.
        """
        consumer = self.consumer
        state = consumer.state
        if headers is None:
            headers = message.headers
            task_id = headers.get("id")
            if task_id.__class__ is not str or not task_id:
                raise MalformedMessage(f"the header 'id' must be the id of the task, not {task_id!r}")
            if headers.get("stamps") or headers.get("stamped_headers"):
                check_stamps(headers)
        now = time.time()
        request: Request = self.request_class(message, self, headers, body, now)
        eta = headers.get("eta")
        expires = headers.get("expires")
        if eta:
            request.eta = _time_header("eta", eta)
        if expires:
            request.expires = _time_header("expires", expires)
        if logger.isEnabledFor(INFO):
            self._log_received(request)
        if consumer.redelivery_settled(request):
            return
        state.by_tag[request.tag] = request
        state.requests[request.id] = request
        if (expires or state.revoked or state.revoked_stamps) and request.revoked():
            return
        send = consumer.send_task_event
        if send is not None and self.task.send_events:
            self._send_received(send, request, headers)
        if task_received.receivers:
            task_received.send(sender=consumer, request=request)
        if eta and request.eta is not None and request.eta > now:
            consumer.apply_eta_task(request)
        else:
            self.start(request)

    def start(self, request: Request) -> None:
        """Give a request whose time has come to the pool, as the rate limit allows."""
        consumer = self.consumer
        bucket = consumer.task_buckets.get(self.name)
        if bucket is not None and not consumer.held_for(self, bucket).admit(request):
            request.phase = SCHEDULED
            consumer.hold_prefetch()
            return
        self.dispatch(request)

    def resume(self, request: Request) -> None:
        """Give a request that the rate limit held back to the pool."""
        self.consumer.release_prefetch()
        request.phase = RESERVED
        if not (request.expires is not None or self.consumer.state.revoked) or not request.revoked():
            self.dispatch(request)

    def dispatch(self, request: Request) -> None:
        """Queue the request in the pool."""
        consumer = self.consumer
        state = consumer.state
        state.total[self.name] += 1
        state.processed += 1
        request.execute_using_pool(consumer.pool)
        consumer.note_dispatch(self)

    def note_run(self, seconds: float) -> None:
        """Let a run that took `seconds` count in the average."""
        self.runs += 1
        if self.runs == 1:
            self.average_seconds = seconds
        else:
            self.average_seconds += (seconds - self.average_seconds) * outcomes.NEW_RUN_WEIGHT

    def _log_received(self, request: Request) -> None:
        context = {
            "id": request.id,
            "name": request.headers.get("shadow") or self.name,
            "args": request.argsrepr,
            "kwargs": request.kwargsrepr,
            "eta": request.eta_datetime,
        }
        logger.info(trace.LOG_RECEIVED, context, extra={"data": context})

    def _send_received(self, send: Any, request: Request, headers: Mapping[str, Any]) -> None:
        send(
            "task-received",
            uuid=request.id,
            name=headers.get("shadow") or self.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            root_id=headers.get("root_id"),
            parent_id=headers.get("parent_id"),
            retries=headers.get("retries") or 0,
            eta=headers.get("eta"),
            expires=headers.get("expires"),
        )


def default(task: Any, app: Any, consumer: Consumer) -> TaskStrategy:
    """The strategy of a task type that names no other in `Task.Strategy`."""
    return TaskStrategy(task, app, consumer)


def strategy_for(task: Any, app: Any, consumer: Consumer) -> Any:
    """The strategy that `task` asks for, by `start_strategy(app, consumer)` or the name in `Task.Strategy`."""
    starter = getattr(task, "start_strategy", None)
    if starter is not None:
        return starter(app, consumer)
    return load_class(getattr(task, "Strategy", None), default)(task, app, consumer)


def load_class(named: Any, fallback: Any) -> Any:
    """The object that `named` is, or names (`module:Name` or `module.Name`); `fallback` for None.

    Raises:
        ImportError, AttributeError: there is no such module or name.
    """
    if named is None:
        return fallback
    if not isinstance(named, str):
        return named
    module, _, name = named.replace(":", ".").rpartition(".")
    return getattr(import_module(module), name)


def _time_header(name: str, value: Any) -> float:
    try:
        return epoch_seconds(value)
    except (ValueError, TypeError, OverflowError) as exc:
        raise MalformedMessage(f"the header {name!r} must be a time in ISO-8601 form, not {value!r}") from exc
