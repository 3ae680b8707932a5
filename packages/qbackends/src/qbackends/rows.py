"""Records as table rows and back, as table W20 has them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from qcore import errors, states
from qcore.backend.codec import Codec
from qcore.backend.exceptions import from_wire, safe_repr
from qcore.backend.meta import as_datetime
from qcore.backend.record import ResultRecord

COLUMNS = (
    "task_id", "status", "result", "date_done", "traceback", "children",
    "name", "args", "kwargs", "worker", "retries", "queue", "stamps",
)  # fmt: skip
"""Columns of the task table, less its key."""
EXTENDED = COLUMNS[6:]
"""Those that stock clients only read with `result_extended`."""

_LONGEST_ID = 155
_PICKLE_MARK = b"\x80"


def to_row(record: ResultRecord, codec: Codec) -> dict[str, Any]:
    """The columns of `record`.

    Raises:
        EncodeError: the result cannot be serialized.
        BackendStoreError: the id is too long for the table.
    """
    if len(record.task_id) > _LONGEST_ID:
        raise errors.BackendStoreError(
            f"task ids in a database have at most {_LONGEST_ID} characters: {record.task_id[:40]!r}… has "
            f"{len(record.task_id)}",
            state=record.status,
            task_id=record.task_id,
        )
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(
        task_id=record.task_id,
        status=record.status,
        result=codec.encode(codec.value_to_wire(record.result)),
        date_done=None if record.date_done is None else record.date_done.astimezone(UTC).replace(tzinfo=None),
        traceback=record.traceback,
        children=codec.encode(record.children) if record.children else None,
    )
    if record.extended:
        row.update(
            name=_short(record.name),
            args=_for_display(record.args, codec),
            kwargs=_for_display(record.kwargs, codec),
            worker=_short(record.worker),
            retries=record.retries,
            queue=_short(record.queue),
        )
        if record.stamps:
            stamps = {"stamped_headers": list(record.stamps), "stamps": dict(record.stamps)}
            row["stamps"] = _for_display(stamps, codec)
    return row


def from_row(row: Mapping[str, Any], codec: Codec) -> ResultRecord:
    """The record of a row; columns that an older table lacks may be missing."""
    status = row["status"] or states.PENDING
    result = decode(row["result"], codec)
    if status in states.EXCEPTION_STATES and result is not None:
        result = from_wire(result)
    stamps = decode(row.get("stamps"), codec) or {}
    return ResultRecord(
        task_id=row["task_id"],
        status=status,
        result=result,
        traceback=row["traceback"],
        children=decode(row.get("children"), codec) or [],
        date_done=as_datetime(row["date_done"]),
        name=row.get("name"),
        args=decode(row.get("args"), codec),
        kwargs=decode(row.get("kwargs"), codec),
        worker=row.get("worker"),
        retries=row.get("retries"),
        queue=row.get("queue"),
        stamps=stamps.get("stamps", {}) if isinstance(stamps, Mapping) else {},
        extended=row.get("name") is not None,
    )


def decode(payload: Any, codec: Codec) -> Any:
    """Content of a column; pickles of old versions are read when pickle is accepted (W20-08)."""
    if payload is None:
        return None
    data = payload.encode() if isinstance(payload, str) else bytes(payload)
    if data[:1] == _PICKLE_MARK and not codec.keeps_exceptions:
        if not codec.accepts("pickle"):
            raise errors.ContentDisallowed(
                "the stored result is a pickle, as old versions wrote it: add 'pickle' to result_accept_content "
                "if you trust everybody who can write to the database"
            )
        return pickle.loads(data)
    return codec.decode(codec.unpack(data))


def naive_utc(seconds: float) -> datetime:
    """Epoch `seconds` as the tables keep times: UTC without zone."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _short(text: str | None) -> str | None:
    return text[:_LONGEST_ID] if isinstance(text, str) else text


def _for_display(value: Any, codec: Codec) -> bytes | None:
    """Arguments are stored for display only: what cannot be encoded is stored as its repr."""
    if value is None:
        return None
    try:
        return codec.encode(value)
    except errors.EncodeError:
        return codec.encode(safe_repr(value))
