"""Control: the commands, remote commands that change something.

Commands are broadcast and not waited for, unless `reply=True`; then the return value is a list with one
`{node name: answer}` per worker that answered within `timeout` seconds. A worker that did not answer in time
may still have obeyed.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypedDict, Unpack

from qcore.control.inspect import Inspect
from qcore.control.mailbox import make_mailbox
from qcore.control.request import ControlRequest, Reply, call, cast
from qcore.edge import kombu
from qcore.refusal import need_broadcast

Replies = list[Reply] | None
Nodes = str | Sequence[str] | None


class BroadcastOptions(TypedDict, total=False):
    """What every command takes besides its own arguments; see `Control.broadcast`."""

    connection: Any
    channel: Any
    reply: bool
    timeout: float | None
    limit: int | None
    callback: Callable[[Reply], object] | None
    pattern: str | None
    matcher: str | None


class Control:
    """Commands to the workers on the app's broker."""

    def __init__(self, app: Any) -> None:
        self.app = app

    @cached_property
    def mailbox(self) -> Any:
        """The `kombu.pidbox.Mailbox`; `mailbox.Node(...)` is a worker's end of it.

        Raises:
            ImproperlyConfigured: The `control_queue_*` settings contradict each other.
        """
        return make_mailbox(self.app)

    def broadcast(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        destination: Nodes = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[Reply], object] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra: Any,
    ) -> Replies:
        """Send `command` to the workers.

        Args:
            command: Name of the command.
            arguments: Keyword arguments of the command; `extra` is merged into them.
            destination: Node names (or one); every worker by default.
            connection: Use this connection instead of one of the app's pool.
            reply: Wait for replies.
            timeout: Seconds until the wait ends; earlier when all of `destination` or `limit` answered.
            limit: Number of replies to wait for.
            callback: Called with each reply as it arrives.
            channel: Use this channel of `connection`.
            pattern: Only nodes whose name matches.
            matcher: How to match: `glob` (default) or `pcre`.

        Returns:
            The replies, or None when `reply` is false.

        Raises:
            OperationalError: The broker cannot be reached.
            UnsupportedByBroker: It cannot broadcast.
            ValueError: The destination, pattern or matcher make no sense.
        """
        if pattern is not None:
            matcher = matcher or "glob"
            _check_pattern(pattern, matcher)
        elif matcher is not None:
            raise ValueError(f"matcher {matcher!r} needs a pattern")
        request = ControlRequest(
            command=command,
            arguments={**(arguments or {}), **extra},
            destination=_node_names(destination),
            pattern=pattern,
            matcher=matcher,
            timeout=timeout,
            limit=limit,
            callback=callback,
        )
        with self.app.connection_or_acquire(connection) as conn:
            need_broadcast(conn, "remote control")
            if reply:
                return call(self.mailbox, conn, request, channel)
            cast(self.mailbox, conn, request, channel)
            return None

    def inspect(
        self,
        destination: Nodes = None,
        timeout: float | None = 1.0,
        callback: Callable[[Reply], object] | None = None,
        connection: Any = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> Inspect:
        """The queries; the arguments are those of `Inspect`."""
        return Inspect(self, destination, timeout, callback, connection, limit, pattern, matcher)

    def purge(self, connection: Any = None) -> int:
        """Delete every waiting message of the app's task queues; there is no undo.

        Returns:
            Number of messages deleted.
        """
        with self.app.connection_or_acquire(connection) as conn:
            channel = conn.default_channel
            queues = self.app.amqp.queues
            deleted = 0
            for queue in getattr(queues, "consume_from", queues).values():
                bound = queue(channel)
                bound.declare()  # purging a queue that is not there would close the channel
                deleted += bound.purge() or 0
            return deleted

    discard_all = purge

    def revoke(
        self,
        task_id: str | Sequence[str],
        destination: Nodes = None,
        terminate: bool = False,
        signal: str | int | None = "SIGTERM",
        **options: Unpack[BroadcastOptions],
    ) -> Replies:
        """Tell workers not to run a task (or each task of a list); `terminate` also kills a running one.

        Raises:
            ValueError: There is no such signal.
        """
        _check_signal(signal)
        ids = task_id if isinstance(task_id, str) else list(task_id)
        arguments = {"task_id": ids, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", arguments, destination, **options)

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any] | Sequence[str],
        destination: Nodes = None,
        terminate: bool = False,
        signal: str | int | None = "SIGTERM",
        **options: Unpack[BroadcastOptions],
    ) -> Replies:
        """Revoke the tasks that carry one of these stamps: `{"name": value or list of values}`."""
        _check_signal(signal)
        arguments = {"headers": headers, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, **options)

    def terminate(
        self,
        task_id: str | Sequence[str],
        destination: Nodes = None,
        signal: str | int | None = "SIGTERM",
        **options: Unpack[BroadcastOptions],
    ) -> Replies:
        """`revoke` with `terminate=True`: kills the process that runs the task. A last resort."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **options)

    def ping(self, destination: Nodes = None, **options: Unpack[BroadcastOptions]) -> list[Reply]:
        """`[{node: {"ok": "pong"}}, …]` of the workers that are alive; the default timeout is a second."""
        options["reply"] = True
        return self.broadcast("ping", {}, destination, **options) or []

    def rate_limit(
        self,
        task_name: str,
        rate_limit: str | float | None,
        destination: Nodes = None,
        **options: Unpack[BroadcastOptions],
    ) -> Replies:
        """Limit how often workers start a task: `"200/m"`, a number per second, or 0 for no limit."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", arguments, destination, **options)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Nodes = None,
        **options: Unpack[BroadcastOptions],
    ) -> Replies:
        """Set new time limits (seconds) for a task; runs that have begun keep theirs."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **options)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: dict[str, Any] | None = None,
        destination: Nodes = None,
        **broadcast_options: Unpack[BroadcastOptions],
    ) -> Replies:
        """Let workers consume from `queue` too; harmless when they do already."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", arguments, destination, **broadcast_options)

    def cancel_consumer(
        self, queue: str, destination: Nodes = None, **options: Unpack[BroadcastOptions]
    ) -> Replies:
        """Let workers stop consuming from `queue`."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **options)

    def enable_events(self, destination: Nodes = None, **options: Unpack[BroadcastOptions]) -> Replies:
        """Let workers send task events."""
        return self.broadcast("enable_events", {}, destination, **options)

    def disable_events(self, destination: Nodes = None, **options: Unpack[BroadcastOptions]) -> Replies:
        """Let workers stop sending task events."""
        return self.broadcast("disable_events", {}, destination, **options)

    def heartbeat(self, destination: Nodes = None, **options: Unpack[BroadcastOptions]) -> Replies:
        """Let workers send a heartbeat event now."""
        return self.broadcast("heartbeat", {}, destination, **options)

    def pool_grow(
        self, n: int = 1, destination: Nodes = None, **options: Unpack[BroadcastOptions]
    ) -> Replies:
        """Add `n` slots to the pools."""
        return self.broadcast("pool_grow", {"n": n}, destination, **options)

    def pool_shrink(
        self, n: int = 1, destination: Nodes = None, **options: Unpack[BroadcastOptions]
    ) -> Replies:
        """Take `n` slots from the pools."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **options)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Nodes = None,
        **options: Unpack[BroadcastOptions],
    ) -> Replies:
        """Restart the pools, importing `modules` anew when `reload` is on; needs `worker_pool_restarts`."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", arguments, destination, **options)

    def autoscale(
        self, max: int, min: int, destination: Nodes = None, **options: Unpack[BroadcastOptions]
    ) -> Replies:
        """Set the bounds of the pool size."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **options)

    def shutdown(self, destination: Nodes = None, **options: Unpack[BroadcastOptions]) -> Replies:
        """Shut workers down warmly: they finish what they run. They send no reply."""
        return self.broadcast("shutdown", {}, destination, **options)

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Let the workers elect one of them, which then does `action` (topic `task`: runs that signature)."""
        arguments = {"id": id, "topic": topic, "action": action}
        self.broadcast("election", arguments, connection=connection)


def _node_names(destination: Nodes) -> tuple[str, ...] | None:
    if not destination:
        return None
    names = (destination,) if isinstance(destination, str) else tuple(destination)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"destination must be node names such as 'q@host', not {name!r}")
    return names


def _check_pattern(pattern: str, matcher: str) -> None:
    if not isinstance(pattern, str) or not isinstance(matcher, str):
        raise ValueError(f"pattern and matcher must be strings, not {pattern!r} and {matcher!r}")
    try:
        kombu("kombu.matcher").match("", pattern, matcher)
    except Exception as exc:  # a matcher is foreign code; the workers would only log what it raises
        raise ValueError(f"cannot match node names by {matcher} with {pattern!r}: {exc}") from exc


def _check_signal(name: str | int | None) -> None:
    if isinstance(name, str) and not name.isdigit() and name not in signals.Signals.__members__:
        full = f"SIG{name}"
        if full not in signals.Signals.__members__:
            raise ValueError(f"no signal is called {name!r}; use a name such as 'SIGTERM' or 'SIGKILL'")
