"""What a running task knows of its call: `self.request`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qcore.message import DEAD_LETTER_HEADERS, PROTOCOL_HEADERS


class Context:
    """The request of one execution; unknown attributes are AttributeErrors, `get` has a default.

    User headers of the message are attributes too (`request.my_header`) and stand in `headers`.
    """

    id: str | None = None
    task: str | None = None
    args: Any = None
    kwargs: Any = None
    group: str | None = None
    group_index: int | None = None
    chord: Any = None
    chain: Any = None
    callbacks: Any = None
    errbacks: Any = None
    root_id: str | None = None
    parent_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    origin: str | None = None
    hostname: str | None = None
    retries: int = 0
    is_eager: bool = False
    called_directly: bool = True
    eta: str | None = None
    expires: Any = None
    timelimit: Any = None
    utc: bool | None = None
    lang: str | None = None
    shadow: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: Any = None
    headers: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    delivery_info: Any = None
    logfile: str | None = None
    loglevel: int | None = None
    taskset: str | None = None
    replaced: bool = False
    """Whether another task has taken this one's place; its end then means nothing for the workflow."""

    _children: list[Any] | None = None

    def __init__(self, *mappings: Mapping[str, Any], **fields: Any) -> None:
        for mapping in mappings:
            self.__dict__.update(mapping)
        if fields:
            self.__dict__.update(fields)

    @property
    def children(self) -> list[Any]:
        """Results of the tasks that this one sent."""
        if self._children is None:
            self._children = []
        return self._children

    @property
    def time_limit(self) -> float | None:
        """Hard limit of this execution in seconds."""
        return self.timelimit[0] if self.timelimit else None

    @property
    def soft_time_limit(self) -> float | None:
        """Soft limit of this execution in seconds."""
        return self.timelimit[1] if self.timelimit else None

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set attributes, as `dict.update`."""
        self.__dict__.update(*args, **kwargs)

    def clear(self) -> None:
        """Forget everything; the attributes have their defaults again."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or `default` when there is none of that name."""
        return getattr(self, key, default)

    def __repr__(self) -> str:
        return f"<Context: {self.__dict__!r}>"

    def as_execution_options(self) -> dict[str, Any]:
        """The options that make a new message continue this one (retry, replace): 4RTY-17."""
        hard, soft = self.timelimit or (None, None)
        options = {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": soft,
            "time_limit": hard,
            "headers": self.headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "origin": self.origin,
            "replaced_task_nesting": self.replaced_task_nesting,
            "ignore_result": self.ignore_result,
        }
        if self.stamped_headers:
            options["stamped_headers"] = self.stamped_headers
            options["stamps"] = self.stamps
        return options


def user_headers(headers: Mapping[str, Any], stamped: Iterable[str] | None = None) -> dict[str, Any] | None:
    """The headers that are the user's own; None when there are none (4REQ-08)."""
    if len(headers) <= 19 and not stamped and PROTOCOL_HEADERS.issuperset(headers):
        return None
    own = {
        name: value
        for name, value in headers.items()
        if name not in PROTOCOL_HEADERS and name not in DEAD_LETTER_HEADERS
    }
    return own or None
