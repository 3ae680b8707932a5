"""The record as the mapping of table W15, which is what stores keep and what `on_message` shows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from qcore import states

from .exceptions import from_wire
from .record import ResultRecord


def as_meta(record: ResultRecord, result: Any = None) -> dict[str, Any]:
    """The mapping of `record`.

    Args:
        record: what to show.
        result: wire form of its result; default the result itself.
    """
    meta: dict[str, Any] = {
        "status": record.status,
        "result": record.result if result is None else result,
        "traceback": record.traceback,
        "children": record.children,
        "date_done": None if record.date_done is None else record.date_done.isoformat(),
    }
    if record.group_id:
        meta["group_id"] = record.group_id
    if record.parent_id:
        meta["parent_id"] = record.parent_id
    if record.extended:
        meta["name"] = record.name
        meta["args"] = record.args
        meta["kwargs"] = record.kwargs
        meta["worker"] = record.worker
        meta["retries"] = record.retries
        meta["queue"] = record.queue
        if record.stamps:
            meta["stamped_headers"] = list(record.stamps)
            meta.update(record.stamps)
    meta["task_id"] = record.task_id
    return meta


def from_meta(task_id: str, meta: Mapping[str, Any]) -> ResultRecord:
    """The record of a mapping that came from a store; exceptions are rebuilt, missing fields are None."""
    status = meta.get("status") or states.PENDING
    result = meta.get("result")
    if status in states.EXCEPTION_STATES and result is not None:
        result = from_wire(result)
    extended = "worker" in meta or "name" in meta
    stamps = {name: meta[name] for name in meta.get("stamped_headers") or () if name in meta}
    return ResultRecord(
        task_id=meta.get("task_id") or task_id,
        status=status,
        result=result,
        traceback=meta.get("traceback"),
        children=meta.get("children"),
        date_done=as_datetime(meta.get("date_done")),
        group_id=meta.get("group_id"),
        parent_id=meta.get("parent_id"),
        name=meta.get("name"),
        args=meta.get("args"),
        kwargs=meta.get("kwargs"),
        worker=meta.get("worker"),
        retries=meta.get("retries"),
        queue=meta.get("queue"),
        stamps=stamps,
        extended=extended,
    )


def as_datetime(value: datetime | str | None) -> datetime | None:
    """An aware time; text and times without offset are read as UTC."""
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
