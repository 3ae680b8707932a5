"""Inspect: the queries, remote commands without side effects.

Every query returns a mapping of node name to answer, or None when no worker answered in time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from qcore.control.request import Reply
from qcore.edge import kombu
from qcore.errors import DuplicateNodenameWarning

Answers = dict[str, Any] | None


class Broadcaster(Protocol):
    """What sends the queries: `Control`."""

    def broadcast(self, command: str, arguments: dict[str, Any] | None, **options: Any) -> list[Reply] | None:
        """Send a command; with `reply=True` return the replies."""


def flatten_replies(replies: Iterable[Reply]) -> dict[str, Any]:
    """One mapping of node name to answer; warns when several workers answered under one name."""
    nodes: dict[str, Any] = {}
    doubled = set()
    for reply in replies:
        doubled.update(nodes.keys() & reply.keys())
        nodes.update(reply)
    if doubled:
        warnings.warn(
            DuplicateNodenameWarning(
                f"more than one worker answers as {', '.join(sorted(doubled))}: give every worker a node "
                "name of its own with the option -n"
            ),
            stacklevel=2,
        )
    return nodes


class Inspect:
    """Asks workers about themselves.

    Args:
        control: Sends the queries.
        destination: Node names, or one node name; every node by default.
        timeout: Seconds to wait for answers.
        callback: Called with each answer as it arrives.
        connection: Use this connection instead of one of the app's pool.
        limit: Number of answers to wait for.
        pattern, matcher: Ask the nodes whose name matches, by `glob` (default) or `pcre`.
    """

    def __init__(
        self,
        control: Broadcaster,
        destination: str | Sequence[str] | None = None,
        timeout: float | None = 1.0,
        callback: Callable[[Reply], object] | None = None,
        connection: Any = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.control = control
        self.destination = [destination] if isinstance(destination, str) else destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def request(self, command: str, destination: Sequence[str] | None = None, **arguments: Any) -> Answers:
        """The answers to any inspect command, one of yours included."""
        replies = self.control.broadcast(
            command,
            arguments,
            destination=destination or self.destination,
            callback=self.callback,
            connection=self.connection,
            limit=self.limit,
            timeout=self.timeout,
            reply=True,
            pattern=self.pattern,
            matcher=self.matcher,
        )
        if not replies:
            return None
        nodes = flatten_replies(replies)
        if self.pattern is None:
            return nodes
        # Workers older than the pattern field answer every request.
        match = kombu("kombu.matcher").match
        return {name: answer for name, answer in nodes.items() if match(name, self.pattern, self.matcher)}

    def active(self, safe: bool | None = None) -> Answers:
        """Tasks that are being executed; `safe` asks for text forms of args and kwargs."""
        return self.request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Answers:
        """Tasks that wait in the worker for their eta: `{"eta", "priority", "request"}` each."""
        return self.request("scheduled")

    def reserved(self, safe: bool | None = None) -> Answers:
        """Tasks that were received and wait for a free slot."""
        return self.request("reserved")

    def stats(self) -> Answers:
        """Statistics: broker, clock, pid, pool, prefetch_count, rusage, total, uptime."""
        return self.request("stats")

    def revoked(self) -> Answers:
        """Ids of revoked tasks that the worker remembers."""
        return self.request("revoked")

    def registered(self, *taskinfoitems: str) -> Answers:
        """Names of registered tasks, with the named attributes of each."""
        return self.request("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def ping(self, destination: str | Sequence[str] | None = None) -> Answers:
        """`{"ok": "pong"}` of every node that is alive."""
        return self.request("ping", [destination] if isinstance(destination, str) else destination)

    def active_queues(self) -> Answers:
        """Queues that the worker consumes from."""
        return self.request("active_queues")

    def query_task(self, *ids: str | Sequence[str]) -> Answers:
        """`{id: [state, info]}` of the tasks that the worker knows."""
        flat = [task_id for item in ids for task_id in ([item] if isinstance(item, str) else item)]
        return self.request("query_task", ids=flat)

    def conf(self, with_defaults: bool = False) -> Answers:
        """Settings of the worker, secrets censored."""
        return self.request("conf", with_defaults=with_defaults)

    def clock(self) -> Answers:
        """`{"clock": n}`: the worker's logical clock."""
        return self.request("clock")

    def report(self) -> Answers:
        """`{"ok": text}`: software versions and settings for a bug report."""
        return self.request("report")

    def hello(self, from_node: str, revoked: Any = None) -> Answers:
        """What a starting worker asks its neighbours: their clock and revoked tasks."""
        return self.request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Answers:
        """Sample the worker's memory use."""
        return self.request("memsample")

    def memdump(self, samples: int = 10) -> Answers:
        """Statistics of the last memory samples."""
        return self.request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Answers:
        """`{"filename": …}`: a picture of what keeps objects of `type` alive."""
        return self.request("objgraph", num=n, max_depth=max_depth, type=type)
