"""The way of commands to the server of a cluster that has their queue, also while slots move or a replica takes
over.

A server that does not have a slot (any more) says so and does nothing: `MOVED` names the new one, `ASK` the one
that gets the slot just now, and while the keys of a queue are on both, a script that needs several is told
`TRYAGAIN`. All of it is followed here, for a bounded time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from time import monotonic
from typing import Any

from attrs import field, frozen
from redis import exceptions

from qbrokers.redis.refusals import is_refused, refusal
from qbrokers.redis.scripts import ALL
from qbrokers.redis.servers import Server
from qbrokers.redis.slots import Node, SlotMap
from qbrokers.redis.wire import CONNECTION_ERRORS, Command, Wire

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.25

_ASKING: Command = (b"ASKING",)


class Routes:
    """One connection per server of the cluster.

    Args:
        server: Where the cluster is.
        slots: Its map.
        timeout_seconds: How long a reply may take.
        patience_seconds: How long a command that is turned down is tried again.
    """

    def __init__(
        self, server: Server, slots: SlotMap, timeout_seconds: float, patience_seconds: float
    ) -> None:
        self.slots = slots
        self._server = server
        self._timeout = timeout_seconds
        self._patience = patience_seconds
        self._wires: dict[Node, Wire] = {}

    def new(self, node: Node) -> Wire:
        return Wire(self._server.at(*node), self._timeout)

    def to(self, group: str) -> Route:
        return Route(self, group)

    def any(self) -> tuple[Node, Wire]:
        """A server that can be reached, for what is bound to none: broadcasts, the look at the version.

        Raises:
            redis.exceptions.ConnectionError: None can.
        """
        for node, wire in self._wires.items():
            if wire.connected:
                return node, wire
        failure: BaseException | None = None
        for node in self.slots.nodes():
            try:
                return node, self._open(node)
            except exceptions.AuthenticationError:
                raise
            except CONNECTION_ERRORS as exc:
                failure = exc
        self.slots.forget()
        raise exceptions.ConnectionError(f"no server of the Redis Cluster can be reached: {failure}")

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
        self.slots.forget()

    def exchange(self, group: str, commands: Sequence[Command], after: Command | None = None) -> list[Any]:
        """Send commands of one group in one round trip, and again what was turned down.

        Commands between `MULTI` and `EXEC` are sent again together.

        Args:
            group: Books or queue that the commands are about.
            commands: What to send.
            after: A command about no key (`WAIT`) that follows them wherever they are done.

        Returns:
            The replies, those of errors included; of `after` the smallest, as the last one.

        Raises:
            redis.exceptions.ConnectionError: A connection is lost, or no server can be reached.
        """
        if not group:
            return self.any()[1].pipeline([*commands, *((after,) if after else ())], raise_errors=False)
        trip = _Trip(commands, after)
        deadline, pause = monotonic() + self._patience, 0.0
        while True:
            try:
                node, wire = self._next(group, trip)
            except exceptions.AuthenticationError:
                raise
            except CONNECTION_ERRORS:
                # Nothing was sent. Another server may have the slots by now.
                self.slots.forget()
                trip.ask_nobody()
                if monotonic() + pause > deadline:
                    raise
            else:
                refused = self._send(wire, trip)
                if not refused or monotonic() + pause > deadline:
                    return trip.replies()
                if self._follow(refused, node, trip) and not pause:
                    pause = FIRST_PAUSE_SECONDS
                    continue
            time.sleep(pause or FIRST_PAUSE_SECONDS)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * (pause or FIRST_PAUSE_SECONDS))

    def _next(self, group: str, trip: _Trip) -> tuple[Node, Wire]:
        node = trip.node or self.slots.node(group)
        return node, self._open(node)

    def _open(self, node: Node) -> Wire:
        wire = self._wires.get(node)
        if wire is None:
            wire = self._wires[node] = self.new(node)
            wire._on_connect = _load_scripts
        wire.connect()
        return wire

    def _send(self, wire: Wire, trip: _Trip) -> Any:
        try:
            return trip.take(wire.pipeline(trip.commands(), raise_errors=False))
        except CONNECTION_ERRORS:
            self.slots.forget()
            raise

    def _follow(self, refused: Any, node: Node, trip: _Trip) -> bool:
        """Turn to where the reply points; returns whether it named a server."""
        word = refusal(refused)
        if word != "ASK":
            self.slots.forget()
        if word not in ("MOVED", "ASK"):
            trip.ask_nobody()
            return False
        host, _, port = str(refused).split(" ")[2].rpartition(":")
        trip.node = (host if host not in ("", "?") else node[0], int(port))
        trip.asking = word == "ASK"
        return True


class _Trip:
    """What is left to do of the commands of one exchange, and where."""

    def __init__(self, commands: Sequence[Command], after: Command | None) -> None:
        self.node: Node | None = None
        self.asking = False
        self._commands = commands
        self._after = after
        self._after_reply: Any = None
        self._replies: list[Any] = [None] * len(commands)
        self._left = list(range(len(commands)))
        self._together = bool(commands) and commands[0][0] == b"MULTI"

    def ask_nobody(self) -> None:
        self.node, self.asking = None, False

    def commands(self) -> list[Command]:
        left = [self._commands[i] for i in self._left]
        if self.asking:
            # One `ASKING` holds for one command, or for a whole transaction.
            left = [_ASKING, *left] if self._together else [x for one in left for x in (_ASKING, one)]
        return [*left, self._after] if self._after else left

    def take(self, replies: list[Any]) -> Any:
        """Note the replies; returns the first with which something was turned down, None when all is done."""
        after = replies.pop() if self._after else None
        if self.asking:
            replies = replies[1:] if self._together else replies[1::2]
        for i, reply in zip(self._left, replies, strict=True):
            self._replies[i] = reply
        refused = [i for i, reply in zip(self._left, replies, strict=True) if is_refused(reply)]
        if (len(refused) < len(self._left) and not (refused and self._together)) or not self._left:
            self._note(after)
        if not refused:
            return None
        first = self._replies[refused[0]]
        self._left = self._left if self._together else refused
        return first

    def _note(self, after: Any) -> None:
        known = self._after_reply
        if known is None or isinstance(after, Exception) or (isinstance(known, int) and after < known):
            self._after_reply = after

    def replies(self) -> list[Any]:
        return [*self._replies, self._after_reply] if self._after else self._replies


@frozen
class Route:
    """The connection for the commands of one group, wherever they have to go.

    Attributes:
        routes: The connections.
        group: Books or queue that the commands are about; empty for what is bound to none.
    """

    routes: Routes = field(repr=False)
    group: str

    def call(self, *command: Any) -> Any:
        """Send one command and return its reply; see `Wire.call`."""
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[Command], *, raise_errors: bool = True) -> list[Any]:
        """Send many commands and return their replies; see `Wire.pipeline`."""
        if not commands:
            return []
        replies = self.routes.exchange(self.group, commands)
        if raise_errors:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


def _load_scripts(wire: Wire) -> None:
    """A server that gets a slot may be asked to run a script before it is asked for anything else."""
    wire.pipeline([(b"SCRIPT", b"LOAD", script.source) for script in ALL], raise_errors=False)
