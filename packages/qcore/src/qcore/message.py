"""The task message: protocol 2 out (1 on request), 1 and 2 in.

Protocol 2 keeps everything that a worker needs to decide about a message in its headers; the body is
`[args, kwargs, embed]`, encoded once. Protocol 1 is one object in the body. The shapes are those of the
acceptance list "WIRE", tables W4, W5, W8 and W9.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from qcore.errors import QError

PROTOCOL_HEADERS: Final = frozenset(
    {
        "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit",
        "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result",
        "replaced_task_nesting", "stamped_headers", "stamps", "compression", "meth", "redelivered",
        "x-delivery-count", "x-lost-deliveries", "x-first-lost", "x-last-lost", "x-last-node", "x-trial",
        "delivery_info", "reply_to", "correlation_id", "args", "kwargs", "hostname",
    }
)  # fmt: skip
"""Header names with a meaning of their own; every other header is the user's."""

DEAD_LETTER_HEADERS: Final = frozenset(
    {
        "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
        "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason",
    }
)  # fmt: skip
"""What RabbitMQ adds to a dead-lettered message; never copied to a message that we send (4RTY-18)."""

_origin: dict[int, str] = {}


class MalformedMessage(QError, ValueError):
    """A message that cannot be taken for a task; the text says what is wrong with it."""


def origin() -> str:
    """`gen<pid>@<host>`: who sends, as messages and client events name it."""
    pid = os.getpid()
    text = _origin.get(pid)
    if text is None:
        _origin.clear()
        text = _origin[pid] = f"gen{pid}@{socket.gethostname()}"
    return text


@frozen(kw_only=True)
class TaskMessage:
    """One call of one task, ready to be encoded."""

    task: str
    id: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(factory=dict)
    argsrepr: str = "()"
    kwargsrepr: str = "{}"
    eta: str | None = None
    """ISO-8601 text with offset."""
    expires: str | None = None
    """ISO-8601 text with offset."""
    retries: int = 0
    time_limit: float | None = None
    soft_time_limit: float | None = None
    shadow: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    origin: str | None = None
    callbacks: Sequence[Any] | None = None
    errbacks: Sequence[Any] | None = None
    chain: Sequence[Any] | None = None
    """The remaining tasks in reverse: the next one is the last element."""
    chord: Any = None
    stamped_headers: Sequence[str] | None = None
    stamps: Mapping[str, Any] = field(factory=dict)
    headers: Mapping[str, Any] | None = None
    """The user's own; they stand beside the protocol's and win over them."""

    def protocol_2(self) -> tuple[dict[str, Any], tuple[Any, ...]]:
        """Headers and body, tables W4 and W5."""
        headers = {
            "lang": "py",
            "task": self.task,
            "id": self.id,
            "shadow": self.shadow,
            "eta": self.eta,
            "expires": self.expires,
            "group": self.group,
            "group_index": self.group_index,
            "retries": self.retries,
            "timelimit": [self.time_limit, self.soft_time_limit],
            "root_id": self.root_id or self.id,
            "parent_id": self.parent_id,
            "argsrepr": self.argsrepr,
            "kwargsrepr": self.kwargsrepr,
            "origin": self.origin or origin(),
            "ignore_result": self.ignore_result,
            "replaced_task_nesting": self.replaced_task_nesting,
            "stamped_headers": self.stamped_headers,
            "stamps": self.stamps,
        }
        if self.headers:
            headers.update(self.headers)
        embed = {
            "callbacks": self.callbacks,
            "errbacks": self.errbacks,
            "chain": self.chain,
            "chord": self.chord,
        }
        return headers, (self.args, self.kwargs, embed)

    def protocol_1(self, utc: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
        """Empty headers and the body object of table W8; a chain travels as nested callbacks."""
        callbacks = list(self.callbacks or [])
        if self.chain:
            callbacks.append(nested_callbacks(self.chain))
        body = {
            "task": self.task,
            "id": self.id,
            "args": self.args,
            "kwargs": self.kwargs,
            "group": self.group,
            "group_index": self.group_index,
            "retries": self.retries,
            "eta": self.eta,
            "expires": self.expires,
            "utc": utc,
            "callbacks": callbacks or None,
            "errbacks": self.errbacks,
            "timelimit": (self.time_limit, self.soft_time_limit),
            "taskset": self.group,
            "chord": self.chord,
        }
        return dict(self.headers or {}), body


def nested_callbacks(chain: Sequence[Any]) -> dict[str, Any]:
    """The remaining chain (next task last) as one signature whose callbacks hold the rest."""
    nested: dict[str, Any] | None = None
    for signature in chain:  # from the last task of the chain to the next one
        copy = dict(signature)
        if nested is not None:
            options = dict(copy.get("options") or {})
            options["link"] = [*(options.get("link") or []), nested]
            copy["options"] = options
        nested = copy
    assert nested is not None
    return nested


def headers_of(message: Any) -> dict[str, Any] | None:
    """The protocol 2 headers of a kombu message; None when it is not of protocol 2."""
    headers = message.headers
    if isinstance(headers, dict) and "task" in headers:
        return headers
    return None


def check_headers(headers: Mapping[str, Any]) -> None:
    """Raise `MalformedMessage` when name or id of a protocol 2 message cannot be used."""
    name, task_id = headers.get("task"), headers.get("id")
    if not isinstance(name, str) or not name:
        raise MalformedMessage(f"the header 'task' must be the name of a task, not {name!r}")
    if not isinstance(task_id, str) or not task_id:
        raise MalformedMessage(f"the header 'id' must be the id of the task, not {task_id!r}")
    check_stamps(headers)


def check_stamps(headers: Mapping[str, Any]) -> None:
    """Raise `MalformedMessage` when the stamps of a message cannot be used."""
    stamps, names = headers.get("stamps"), headers.get("stamped_headers")
    if stamps and not isinstance(stamps, dict):
        raise MalformedMessage(f"the header 'stamps' must be an object, not {short_repr(stamps, 100)}")
    if names and not (isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)):
        raise MalformedMessage(
            f"the header 'stamped_headers' must be a list of names, not {short_repr(names, 100)}"
        )


def from_protocol_1(
    payload: Any, headers: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], list[Any]]:
    """Headers and body of protocol 2 for the decoded body of a protocol 1 message.

    Also takes the hybrid form, protocol 2 headers with a protocol 1 body (W9-02).

    Raises:
        MalformedMessage: the body is not an object with `task` and `id`.
    """
    if not isinstance(payload, dict) or "task" not in payload:
        raise MalformedMessage("neither a header nor the body names a task")
    args, kwargs = payload.get("args"), payload.get("kwargs")
    limits = payload.get("timelimit") or (None, None)
    converted = {
        "lang": "py",
        "task": payload["task"],
        "id": payload.get("id"),
        "shadow": None,
        "eta": _local_time(payload, "eta"),
        "expires": _local_time(payload, "expires"),
        "group": payload.get("group") or payload.get("taskset"),
        "group_index": payload.get("group_index"),
        "retries": payload.get("retries") or 0,
        "timelimit": list(limits),
        "root_id": payload.get("id"),
        "parent_id": None,
        "argsrepr": short_repr(args),
        "kwargsrepr": short_repr(kwargs),
        "origin": None,
        "ignore_result": None,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        **(headers or {}),
    }
    check_headers(converted)
    embed = {
        "callbacks": payload.get("callbacks"),
        "errbacks": payload.get("errbacks"),
        "chain": None,
        "chord": payload.get("chord"),
    }
    return converted, [args or [], kwargs or {}, embed]


def _local_time(payload: Mapping[str, Any], key: str) -> str | None:
    """A time of a protocol 1 message; with `utc` false it is in this machine's local time (W8-03)."""
    text = payload.get(key)
    if not text or payload.get("utc", True) or not isinstance(text, str):
        return text
    from datetime import datetime

    moment = datetime.fromisoformat(text)
    return moment.astimezone().isoformat() if moment.tzinfo is None else text


def check_body(payload: Any) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The three parts of a decoded protocol 2 body.

    Raises:
        MalformedMessage: it is not `[args, kwargs, embed]` of array, object, object or null.
    """
    if not isinstance(payload, (list, tuple)) or len(payload) != 3:
        raise MalformedMessage(f"the body must be [args, kwargs, embed], got {short_repr(payload, 120)}")
    args, kwargs, embed = payload
    if not isinstance(args, (list, tuple)):
        raise MalformedMessage(f"the positional arguments must be an array, got {short_repr(args, 120)}")
    if not isinstance(kwargs, dict):
        raise MalformedMessage(f"the keyword arguments must be an object, got {short_repr(kwargs, 120)}")
    if embed is not None and not isinstance(embed, dict):
        raise MalformedMessage(f"the third part of the body must be an object, got {short_repr(embed, 120)}")
    return list(args), kwargs, embed or {}


_PLAIN = (int, float, bool, type(None))


def short_repr(value: Any, limit: int = 1024, levels: int = 3) -> str:
    """Text form of arguments or a result, at most `limit` characters, never raising."""
    kind = type(value)
    if kind in _PLAIN or (kind is str and len(value) < 200):
        return repr(value)
    if kind in (list, tuple) and len(value) <= 8 and all(_is_small(v) for v in value):
        return repr(value)
    if kind is dict and (not value or (len(value) <= 8 and all(_is_small(v) for v in value.values()))):
        return repr(value)
    from qcore.utils import saferepr

    return saferepr(value, maxlen=limit, maxlevels=levels)


def _is_small(value: Any) -> bool:
    kind = type(value)
    return kind in _PLAIN or (kind is str and len(value) < 100)
