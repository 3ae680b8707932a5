"""The record of one task's state, as it is stored and as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from attrs import field, frozen

from qcore import states
from qcore.times import utc_now


class RequestLike(Protocol):
    """What a store reads from the request of the task (`qcore.request.Context`)."""

    id: Any
    task: Any
    args: Any
    kwargs: Any
    group: Any
    group_index: Any
    chord: Any
    root_id: Any
    parent_id: Any
    reply_to: Any
    correlation_id: Any
    delivery_info: Any
    hostname: Any
    retries: Any
    ignore_result: Any
    stamps: Any
    stamped_headers: Any


@frozen(kw_only=True)
class ResultRecord:
    """State and result of one task; what table W15 of the wire facts calls the meta object.

    When written, `result` is the return value, the exception, or the meta of a custom state, and `children`
    are result tuples. When read, an exception has been rebuilt.
    """

    task_id: str
    status: str = states.PENDING
    result: Any = None
    traceback: str | None = None
    children: Sequence[Any] | None = None
    """Result tuples: `[[id, parent tuple or None], None or member tuples]`."""
    date_done: datetime | None = None
    """Aware time at which a ready state was reached; None for other states."""
    group_id: str | None = None
    parent_id: str | None = None
    name: str | None = None
    """This and what follows is there with `result_extended` only."""
    args: Any = None
    kwargs: Any = None
    worker: str | None = None
    retries: int | None = None
    queue: str | None = None
    stamps: Mapping[str, Any] = field(factory=dict)

    extended: bool = False
    """Whether the extended fields are stored."""
    reply_to: str | None = None
    """Queue that the sender reads; not stored, an address for stores that answer by message."""
    guarded: bool = True
    """Not stored: look for a stored SUCCESS before overwriting. False on the usual first delivery."""

    @property
    def ready(self) -> bool:
        """Whether the task is over."""
        return self.status in states.READY_STATES

    @classmethod
    def of(
        cls,
        request: RequestLike,
        status: str,
        result: Any = None,
        traceback: str | None = None,
        *,
        extended: bool = False,
        date_done: datetime | None = None,
    ) -> ResultRecord:
        """The record that a worker stores for `request`.

        Args:
            request: the context of the execution; its `children` are results (with `as_tuple`).
            status: state reached.
            result: value, exception or meta.
            traceback: text.
            extended: with the fields of `result_extended`.
            date_done: default now, for ready states.
        """
        ready = status in states.READY_STATES
        if ready and date_done is None:
            date_done = utc_now()
        children = getattr(request, "_children", None)
        info = request.delivery_info or {}
        first = not info.get("redelivered") and status in (states.SUCCESS, states.STARTED)
        fields: dict[str, Any] = {}
        if extended:
            fields = {
                "extended": True,
                "name": request.task,
                "args": request.args,
                "kwargs": request.kwargs,
                "worker": request.hostname,
                "retries": request.retries,
                "queue": info.get("routing_key"),
                "stamps": stamps_of(request),
            }
        return cls(
            task_id=request.id,
            status=status,
            result=result,
            traceback=traceback,
            children=[child.as_tuple() for child in children] if children else [],
            date_done=date_done,
            group_id=request.group,
            parent_id=request.parent_id,
            reply_to=request.reply_to,
            guarded=not first,
            **fields,
        )


def stamps_of(request: RequestLike) -> dict[str, Any]:
    """The stamps among the headers of `request`."""
    names = request.stamped_headers or ()
    stamps = request.stamps or {}
    return {name: stamps[name] for name in names if name in stamps}
