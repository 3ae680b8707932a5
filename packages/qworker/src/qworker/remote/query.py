"""Remote commands without side effects."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from qworker import statistics
from qworker.panel import ControlState, inspect_command
from qworker.revoked import LimitedSet
from qworker.state import ACTIVE, SCHEDULED

logger = logging.getLogger(__name__)

DEFAULT_TASK_INFO = ("exchange", "routing_key", "rate_limit")
_memory_samples: list[float] = []


@inspect_command()
def ping(state: ControlState, **kwargs: Any) -> Any:
    """Ask whether the worker is alive."""
    return {"ok": "pong"}


@inspect_command()
def clock(state: ControlState, **kwargs: Any) -> Any:
    """The logical clock."""
    return {"clock": state.app.clock.value}


@inspect_command()
def report(state: ControlState) -> Any:
    """Versions and settings, for a bug report."""
    return {"ok": statistics.report(state.app)}


@inspect_command(
    alias="dump_conf",
    signature="[include_defaults=False]",
    args=[("with_defaults", lambda text: text in ("1", "true"))],
)
def conf(state: ControlState, with_defaults: bool = False, **kwargs: Any) -> Any:
    """The settings, secrets censored."""
    return jsonable(state.app.conf.table(with_defaults=with_defaults, censored=True))


@inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: ControlState, ids: str | Sequence[Any], **kwargs: Any) -> Any:
    """What the worker knows of these tasks: `{id: [state, info]}`."""
    return {request.id: [_phase(request), request.info()] for request in _requests(state, _flat(ids))}


@inspect_command(alias="dump_schedule")
def scheduled(state: ControlState, **kwargs: Any) -> Any:
    """Tasks that wait for their time."""
    return [
        {
            "eta": _iso(request.eta),
            "priority": 6,
            "request": request.info(),
        }
        for request in state.consumer.state.scheduled
    ]


@inspect_command(alias="dump_reserved")
def reserved(state: ControlState, **kwargs: Any) -> Any:
    """Tasks that were received and have not started."""
    return [request.info() for request in state.consumer.state.reserved]


@inspect_command(alias="dump_active")
def active(state: ControlState, safe: bool | None = False, **kwargs: Any) -> Any:
    """Tasks that run."""
    return [request.info(safe=bool(safe)) for request in state.consumer.state.active]


@inspect_command(alias="dump_revoked")
def revoked(state: ControlState, **kwargs: Any) -> Any:
    """Ids that must not run."""
    return list(state.consumer.state.revoked)


@inspect_command(alias="dump_tasks", variadic="taskinfoitems", signature="[attr1 [attr2 [... [attrN]]]]")
def registered(
    state: ControlState, taskinfoitems: Iterable[str] | None = None, builtins: bool = False, **kwargs: Any
) -> Any:
    """Names of the registered tasks, with the named attributes."""
    names = [name for name in (taskinfoitems or DEFAULT_TASK_INFO) if not name.startswith("_")]
    tasks = state.app.tasks
    return [
        _describe(tasks[name], names) for name in sorted(tasks) if builtins or not name.startswith("celery.")
    ]


@inspect_command()
def stats(state: ControlState, **kwargs: Any) -> Any:
    """Statistics of the worker."""
    return jsonable(state.consumer.controller.stats())


@inspect_command()
def active_queues(state: ControlState) -> Any:
    """The queues that the worker consumes from."""
    consumer = state.consumer.task_consumer
    if consumer is None:
        return []
    return [jsonable(queue.as_dict(recurse=True)) for queue in consumer.queues]


@inspect_command(visible=False)
def hello(state: ControlState, from_node: str, revoked: Any = None, **kwargs: Any) -> Any:
    """Mingle: another worker starts and wants to know what was revoked."""
    if from_node == state.hostname:
        return None
    logger.info("sync with %s", from_node)
    memory: LimitedSet = state.consumer.state.revoked
    if revoked:
        memory.update(revoked)
    memory.purge()
    return {"revoked": list(memory), "clock": state.app.clock.forward()}


@inspect_command()
def memsample(state: ControlState, **kwargs: Any) -> Any:
    """Sample the memory of the worker's main process."""
    kib = _resident_kib()
    if kib is None:
        return None
    _memory_samples.append(kib)
    del _memory_samples[:-500]
    return humanize_kib(kib)


@inspect_command(args=[("samples", int)], signature="[n_samples=10]")
def memdump(state: ControlState, samples: int = 10, **kwargs: Any) -> Any:
    """The last memory samples."""
    kib = _resident_kib()
    last = _memory_samples[-samples:]
    lines = [f"- {humanize_kib(sample)}" for sample in last]
    if kib is not None:
        lines.append(f"rss: {humanize_kib(kib)}")
    return "\n".join(lines)


@inspect_command(
    args=[("type", str), ("num", int), ("max_depth", int)],
    signature="[object_type=Request] [num=200 [max_depth=10]]",
)
def objgraph(state: ControlState, num: int = 200, max_depth: int = 10, type: str = "Request") -> Any:
    """A picture of what keeps objects of a type alive; needs the package objgraph."""
    try:
        from objgraph import by_type, show_backrefs  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError as exc:
        raise ImportError("Requires the objgraph library: pip install objgraph") from exc
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="qobjg", suffix=".png", delete=False) as file:
        show_backrefs(by_type(type)[:num], max_depth=max_depth, filename=file.name)
        return {"filename": file.name}


# -- shapes


def jsonable(value: Any) -> Any:
    """`value` with everything that JSON does not know as text."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    return repr(value)


def humanize_kib(kib: float) -> str:
    """`12.34MB`."""
    for unit in ("KB", "MB", "GB"):
        if kib < 1024 or unit == "GB":
            break
        kib /= 1024
    return f"{kib:.2f}{unit}"


def _flat(ids: str | Sequence[Any]) -> list[str]:
    if isinstance(ids, str):
        return [ids]
    return [one for item in ids for one in ([item] if isinstance(item, str) else item)]


def _requests(state: ControlState, ids: Iterable[str]) -> list[Any]:
    known = state.consumer.state.requests
    return [known[id] for id in ids if id in known]


def _phase(request: Any) -> str:
    return {ACTIVE: "active", SCHEDULED: "scheduled"}.get(request.phase, "reserved")


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _describe(task: Any, names: Sequence[str]) -> str:
    fields = {name: str(value) for name in names if (value := getattr(task, name, None)) is not None}
    if not fields:
        return str(task.name)
    return f"{task.name} [{' '.join(f'{name}={value}' for name, value in fields.items())}]"


def _resident_kib() -> float | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    import resource

    return pages * resource.getpagesize() / 1024
