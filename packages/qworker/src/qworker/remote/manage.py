"""Remote commands with side effects."""

from __future__ import annotations

import logging
import signal as signals
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module, reload
from types import ModuleType
from typing import Any

from qcore.times import parse_rate
from qworker.consumer.reconnect import discard_revoked
from qworker.panel import ControlState, control_command
from qworker.state import RESERVED

logger = logging.getLogger(__name__)


def ok(text: Any) -> dict[str, Any]:
    """A reply that says that it was done."""
    return {"ok": text}


def nok(text: Any) -> dict[str, Any]:
    """A reply that says that it was refused."""
    return {"error": text}


# -- revoking


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(
    state: ControlState,
    task_id: str | Sequence[str],
    terminate: bool = False,
    signal: str | int | None = None,
    **kwargs: Any,
) -> Any:
    """Let tasks not run (any more); with terminate, end those that run."""
    ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
    worker_state = state.consumer.state
    for id in ids:
        worker_state.revoked.add(id)
    statedb = state.consumer.controller.statedb
    if statedb is not None:
        statedb.save_revoked(ids)
    if terminate:
        ended = _terminate(state, [r for id in ids if (r := worker_state.requests.get(id))], signal)
        return ok(f"terminate: {', '.join(ended) if ended else 'tasks unknown'}")
    for id in ids:
        _discard_waiting(state, id)
    logger.info("Tasks flagged as revoked: %s", ", ".join(ids))
    return ok(f"tasks {set(ids)} flagged as revoked")


@control_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]")
def terminate(state: ControlState, signal: str | int, task_id: str | Sequence[str], **kwargs: Any) -> Any:
    """Revoke tasks and end those that run with a signal."""
    return revoke(state, task_id, terminate=True, signal=signal)


@control_command(variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]")
def revoke_by_stamped_headers(
    state: ControlState,
    headers: Mapping[str, Any] | Iterable[str],
    terminate: bool = False,
    signal: str | int | None = None,
    **kwargs: Any,
) -> Any:
    """Let the tasks with these stamps not run (any more)."""
    wanted = _stamps(headers)
    worker_state = state.consumer.state
    for name, values in wanted.items():
        worker_state.revoked_stamps.setdefault(name, set()).update(values)
    if not terminate:
        discard_revoked(state.consumer)
        return ok(f"headers {wanted} flagged as revoked, but not terminated")
    found = [request for request in worker_state.active if _has_stamp(request, wanted)]
    if not found:
        return ok(f"headers {wanted} were not terminated")
    for request in found:
        worker_state.revoked.add(request.id)
    _terminate(state, found, signal)
    return ok(f"headers {wanted} revoked")


def _stamps(headers: Mapping[str, Any] | Iterable[str]) -> dict[str, list[Any]]:
    if not isinstance(headers, Mapping):
        pairs = [text.split("=", 1) for text in headers]
        headers = {pair[0]: [p[1] for p in pairs if p[0] == pair[0]] for pair in pairs}
    return {
        name: list(value) if isinstance(value, (list, tuple, set)) else [value]
        for name, value in headers.items()
    }


def _has_stamp(request: Any, wanted: Mapping[str, list[Any]]) -> bool:
    from qworker.outcomes import matches_stamps

    return matches_stamps(request, {name: set(values) for name, values in wanted.items()})


def _terminate(state: ControlState, requests: list[Any], signal: str | int | None) -> list[str]:
    number = signal_number(signal)
    ended = []
    for request in requests:
        logger.info("Terminating %s (%s)", request.id, signals.Signals(number).name)
        worker_state = state.consumer.state
        worker_state.revoked.add(request.id)
        if not _discard_waiting(state, request.id):
            request.terminate(state.consumer.pool, number)
        ended.append(request.id)
    return ended


def _discard_waiting(state: ControlState, id: str) -> bool:
    """End a revoked request at once that has not started; False when there is none."""
    consumer = state.consumer
    request = consumer.state.requests.get(id)
    if request is None:
        return False
    if request.phase is RESERVED:
        discard_revoked(consumer)
        return request.tag not in consumer.state.by_tag
    entry = consumer.eta_entries.pop(request.tag, None)
    if entry is None:
        return False
    entry.cancel()
    consumer.release_prefetch()
    return bool(request.revoked())


def signal_number(signal: str | int | None) -> int:
    """The number of a signal given by name (`SIGKILL`, `KILL`) or number; TERM by default.

    Raises:
        ValueError: there is no such signal.
    """
    if signal is None:
        return int(signals.SIGTERM)
    if isinstance(signal, int) or signal.isdigit():
        return int(signals.Signals(int(signal)))
    name = signal.upper()
    try:
        return int(signals.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        raise ValueError(f"no signal is called {signal!r}; use a name such as SIGTERM or SIGKILL") from None


# -- limits


@control_command(
    args=[("task_name", str), ("rate_limit", str)],
    signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
)
def rate_limit(state: ControlState, task_name: str, rate_limit: str | float | None, **kwargs: Any) -> Any:
    """Set the rate limit of a task type in this worker; an empty one lifts it."""
    try:
        parse_rate(rate_limit)
    except ValueError as exc:
        return nok(f"Invalid rate limit string: {exc!r}")
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("Rate limit attempt for unknown task %s", task_name)
        return nok("unknown task")
    task.rate_limit = rate_limit
    state.consumer.reset_rate_limits()
    if not rate_limit:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return ok("rate limit disabled successfully")
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return ok("new rate limit set successfully")


@control_command(
    args=[("task_name", str), ("soft", float), ("hard", float)],
    signature="<task_name> <soft_secs> [hard_secs]",
)
def time_limit(
    state: ControlState, task_name: str, hard: float | None = None, soft: float | None = None, **kwargs: Any
) -> Any:
    """Set the time limits of a task type in this worker, seconds; tasks that run already keep theirs."""
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("Change time limit attempt for unknown task %s", task_name)
        return nok("unknown task")
    task.soft_time_limit = soft
    task.time_limit = hard
    refresh = getattr(state.consumer.strategies.get(task_name), "refresh_limits", None)
    if refresh is not None:
        refresh()
    logger.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return ok("time limits set successfully")


# -- events


@control_command()
def enable_events(state: ControlState) -> Any:
    """Send task events."""
    from qworker.consumer.events import switch_task_events

    dispatcher = state.consumer.event_dispatcher
    if dispatcher is None:
        return nok("event dispatcher unavailable")
    if dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups):
        return ok("task events already enabled")
    dispatcher.groups = frozenset()
    if not dispatcher.enabled:
        dispatcher.enable()
    switch_task_events(state.consumer)
    logger.info("Events of group {task} enabled by remote.")
    return ok("task events enabled")


@control_command()
def disable_events(state: ControlState) -> Any:
    """Send no task events."""
    from qworker.consumer.events import switch_task_events

    dispatcher = state.consumer.event_dispatcher
    if dispatcher is None:
        return nok("event dispatcher unavailable")
    if dispatcher.groups and "task" not in dispatcher.groups:
        return ok("task events already disabled")
    dispatcher.groups = frozenset({"worker"})
    switch_task_events(state.consumer)
    logger.info("Events of group {task} disabled by remote.")
    return ok("task events disabled")


@control_command()
def heartbeat(state: ControlState) -> Any:
    """Send a heartbeat event now."""
    logger.debug("Heartbeat requested by remote.")
    dispatcher = state.consumer.event_dispatcher
    if dispatcher is not None:
        from qworker.consumer.heart import SOFTWARE

        dispatcher.send("worker-heartbeat", freq=5, **SOFTWARE)


@control_command(visible=False)
def election(state: ControlState, id: str, topic: str, action: Any = None, **kwargs: Any) -> Any:
    """Elect one of the workers, which then does the action."""
    if state.consumer.gossip is not None:
        state.consumer.gossip.election(id, topic, action)


# -- the pool


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: ControlState, n: int = 1, **kwargs: Any) -> Any:
    """Add processes to the pool."""
    worker = state.consumer.controller
    if worker.autoscaler is not None:
        return nok("pool_grow is not supported with autoscale. Adjust autoscale range instead.")
    worker.pool.grow(n)
    _resize(state)
    return ok("pool will grow")


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: ControlState, n: int = 1, **kwargs: Any) -> Any:
    """Take processes out of the pool."""
    worker = state.consumer.controller
    if worker.autoscaler is not None:
        return nok("pool_shrink is not supported with autoscale. Adjust autoscale range instead.")
    worker.pool.shrink(n)
    _resize(state)
    return ok("pool will shrink")


def _resize(state: ControlState) -> None:
    if state.consumer.prefetch is not None:
        state.consumer.prefetch.resize(max(state.consumer.pool.num_processes, 1))


@control_command()
def pool_restart(
    state: ControlState,
    modules: Iterable[str] | None = None,
    reload: bool = False,
    reloader: Any = None,
    **kwargs: Any,
) -> Any:
    """Replace all pool processes; needs the setting worker_pool_restarts."""
    if not state.app.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled: set worker_pool_restarts")
    for name in modules or ():
        _load_again(name, reload, reloader)
    state.consumer.pool.restart()
    return ok("reload started")


def _load_again(name: str, again: bool, reloader: Any) -> ModuleType:
    if name not in sys.modules:
        logger.debug("importing module %s", name)
        return import_module(name)
    if again:
        logger.debug("reloading module %s", name)
        return (reloader or reload)(sys.modules[name])
    return sys.modules[name]


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(state: ControlState, max: int | None = None, min: int | None = None) -> Any:
    """Set the bounds of the autoscaler."""
    autoscaler = state.consumer.controller.autoscaler
    if autoscaler is None:
        raise ValueError("Autoscale not enabled: start the worker with --autoscale")
    high, low = autoscaler.update(max, min)
    return ok(f"autoscale now max={high} min={low}")


@control_command()
def shutdown(state: ControlState, msg: str = "Got shutdown from remote", **kwargs: Any) -> Any:
    """Stop the worker when what runs is done."""
    logger.warning(msg)
    state.consumer.controller.lifecycle.request_warm()


# -- queues


@control_command(
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
    signature="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(
    state: ControlState,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> Any:
    """Consume from one queue more."""
    options.update(options.pop("options", None) or {})
    state.consumer.add_task_queue(queue, exchange, exchange_type or "direct", routing_key, **options)
    return ok(f"add consumer {queue}")


@control_command(args=[("queue", str)], signature="<queue>")
def cancel_consumer(state: ControlState, queue: str, **kwargs: Any) -> Any:
    """Stop consuming from a queue."""
    state.consumer.cancel_task_queue(queue)
    return ok(f"no longer consuming from {queue}")
