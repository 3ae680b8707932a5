"""One task as its events describe it.

Events of one task may arrive out of order, as they come from several processes. An event of a state that
logically precedes the current one completes the record and leaves state and timestamp alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from qcore import states
from qevents.state.worker import Worker

if TYPE_CHECKING:

    class Family(Protocol):
        """Where a task finds its relatives: `State`."""

        def get_task(self, uuid: str | None) -> Task | None:
            """The task, when it is in memory."""

        def children_of(self, uuid: str | None) -> list[Task]:
            """The tasks in memory that this one sent."""


STATE_OF_EVENT = {
    "sent": states.PENDING,
    "received": states.RECEIVED,
    "started": states.STARTED,
    "failed": states.FAILURE,
    "retried": states.RETRY,
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "rejected": states.REJECTED,
}

# A late `received` of an earlier run must not bring back what later events have replaced.
_FIELDS_OF_A_LATE_EVENT = {
    states.RECEIVED: frozenset(
        {"name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires"}
    ),
}

_ENVELOPE = frozenset({"type", "utcoffset", "timestamp"})


class Task:
    """A task: equal to another one of the same `uuid`.

    `sent`, `received`, `started`, `succeeded`, `failed`, `retried`, `revoked` and `rejected` are the epoch
    seconds of the last event of that kind, or None. `worker` is the `Worker` that had it last, `client` the
    node that sent it. Fields of events that are not listed in `_fields` become attributes too.
    """

    _fields = (
        "uuid",
        "name",
        "state",
        "received",
        "sent",
        "started",
        "rejected",
        "succeeded",
        "failed",
        "retried",
        "revoked",
        "args",
        "kwargs",
        "eta",
        "expires",
        "retries",
        "worker",
        "result",
        "exception",
        "timestamp",
        "runtime",
        "traceback",
        "exchange",
        "routing_key",
        "clock",
        "client",
        "root",
        "root_id",
        "parent",
        "parent_id",
        "children",
    )
    _info_fields = (
        "args",
        "kwargs",
        "retries",
        "result",
        "eta",
        "runtime",
        "expires",
        "exception",
        "exchange",
        "routing_key",
        "root_id",
        "parent_id",
    )
    __slots__ = (
        "__dict__",
        "__weakref__",
        "args",
        "client",
        "clock",
        "cluster_state",
        "eta",
        "exception",
        "exchange",
        "expires",
        "failed",
        "hostname",
        "kwargs",
        "local_received",
        "name",
        "parent_id",
        "pid",
        "queue",
        "received",
        "rejected",
        "result",
        "retried",
        "retries",
        "revoked",
        "root_id",
        "routing_key",
        "runtime",
        "sent",
        "started",
        "state",
        "succeeded",
        "timestamp",
        "traceback",
        "uuid",
        "worker",
    )

    uuid: str | None
    name: str | None
    state: str
    clock: int
    timestamp: float | None
    worker: Worker | None
    client: str | None
    root_id: str | None
    parent_id: str | None
    hostname: str | None
    cluster_state: Family | None

    def __init__(self, uuid: str | None = None, cluster_state: Family | None = None, **fields: Any) -> None:
        for name in _EMPTY:
            setattr(self, name, None)
        self.uuid = uuid
        self.cluster_state = cluster_state
        self.state = states.PENDING
        self.clock = 0
        for name, value in fields.items():
            setattr(self, name, value)

    def event(
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in an event.

        Args:
            type_: `sent`, `received`, …; another name is a custom state, in upper case.
            timestamp: Epoch seconds at which it was sent.
            local_received: Epoch seconds at which it was received.
            fields: Fields of the event; they become attributes.
        """
        fields = fields or {}
        state = STATE_OF_EVENT.get(type_)
        if state is not None:
            setattr(self, type_, timestamp)
        else:
            state = type_.upper()
        only: Iterable[str] | None = None
        if self._precedes(state):
            only = _FIELDS_OF_A_LATE_EVENT.get(state)
        else:
            self.state = state
            self.timestamp = timestamp
        for name, value in fields.items():
            if name not in _ENVELOPE and (only is None or name in only):
                setattr(self, name, value)

    def _precedes(self, state: str) -> bool:
        if states.RETRY in (state, self.state):
            return False  # a retry starts the sequence anew
        return states.precedence(state) > states.precedence(self.state)

    @property
    def id(self) -> str | None:
        """The same as `uuid`."""
        return self.uuid

    @property
    def ready(self) -> bool:
        """Whether the task is over."""
        return self.state in states.READY_STATES

    @property
    def origin(self) -> str | None:
        """Id of the worker that had the task last, else the client that sent it."""
        return self.client if self.worker is None else self.worker.id

    @property
    def parent(self) -> Task | None:
        """The task that sent this one, when it is in memory."""
        return self.cluster_state.get_task(self.parent_id) if self.cluster_state else None

    @property
    def root(self) -> Task | None:
        """The first task of the workflow, when it is in memory."""
        return self.cluster_state.get_task(self.root_id) if self.cluster_state else None

    @property
    def children(self) -> list[Task]:
        """The tasks that this one sent, as far as they are in memory."""
        return self.cluster_state.children_of(self.uuid) if self.cluster_state else []

    def info(self, fields: Iterable[str] | None = None, extra: Iterable[str] = ()) -> dict[str, Any]:
        """What is known of `fields` (by default those worth showing) and `extra`, without the None values."""
        names = [*(self._info_fields if fields is None else fields), *(extra or ())]
        return {name: value for name in names if (value := getattr(self, name, None)) is not None}

    def as_dict(self) -> dict[str, Any]:
        """All of `_fields`; relatives as their ids, `worker` as the `Worker`."""
        relatives = {
            "root": self.root_id,
            "parent": self.parent_id,
            "children": [child.uuid for child in self.children],
        }
        return {name: relatives[name] if name in relatives else getattr(self, name) for name in self._fields}

    def __eq__(self, other: object) -> bool:
        return self.uuid == other.uuid if isinstance(other, Task) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.uuid)

    def __repr__(self) -> str:
        return f"<Task: {self.name}({self.uuid}) {self.state} clock:{self.clock}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.__class__, self._own_fields())

    def _own_fields(self) -> dict[str, Any]:
        slots = (name for name in self.__slots__ if not name.startswith("__") and name != "cluster_state")
        fields = {name: value for name in slots if (value := getattr(self, name)) is not None}
        return fields | self.__dict__


_EMPTY = tuple(name for name in Task.__slots__ if not name.startswith("__"))


def _rebuild(cls: type[Task], fields: dict[str, Any]) -> Task:
    return cls(**fields)
