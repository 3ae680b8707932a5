"""One kombu connection's life on the server: its owner id, its synchronous connection, and what it has to
settle.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from threading import RLock
from typing import Any
from uuid import uuid4

from qbrokers.redis import scripts, settling
from qbrokers.redis.errors import NotReplicated
from qbrokers.redis.keys import Keys
from qbrokers.redis.options import Options
from qbrokers.redis.scripts import ALL, Script
from qbrokers.redis.servers import Server
from qbrokers.redis.settling import Link, Settlement
from qbrokers.redis.wire import CONNECTION_ERRORS, Command, Wire

logger = logging.getLogger(__name__)

HAND_BACK_BATCH = 500


class Session:
    """State that the channels of one connection share.

    Messages are held under tags `<owner>:<number>`. The owner id belongs to one unbroken life of the
    connection: when a connection is lost, the next claims are made under a new id, the keeper of the
    process goes on renewing the old one for as long as somebody holds its messages, and claims of the old
    one that are still under way are refused.

    Args:
        server: Where the server is.
        keys: Names on the server.
        options: Transport options.
    """

    def __init__(self, server: Server, keys: Keys, options: Options) -> None:
        self.server = server
        self.keys = keys
        self.options = options
        self.owner = uuid4().hex
        self.lost = False
        self.settlements: deque[Settlement] = deque()
        self.awaiting: set[int] = set()
        self._number = 0
        self._lock = RLock()
        self._wire = self.new_wire()

    def new_wire(self) -> Wire:
        return Wire(self.server.connect, self.options.socket_timeout)

    def wire(self, group: str) -> Link:
        """The synchronous connection to the server of a group."""
        return self._wire

    def any_wire(self) -> Wire:
        """A synchronous connection for what is bound to no queue, not necessarily open."""
        return self._wire

    # -- commands that wait for their reply; used by any thread

    def call(self, group: str, *command: Any) -> Any:
        return self.pipeline(group, [command])[0]

    def pipeline(self, group: str, commands: Sequence[Command]) -> list[Any]:
        """Send commands of one group in one round trip.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost. The program is expected to close it and
                to open a new one, as kombu does.
        """
        with self._lock:
            try:
                return self.wire(group).pipeline(commands)
            except CONNECTION_ERRORS:
                self.lost = True
                raise

    def write(self, group: str, commands: Sequence[Command]) -> list[Any]:
        """Send commands that put messages in place, in one round trip.

        With the option `wait_replicas` this returns when so many replicas have them, too.

        Raises:
            NotReplicated: Too few replicas have confirmed it in time.
            redis.exceptions.ConnectionError: The connection is lost; see `pipeline`.
        """
        wanted, seconds = self.options.wait_replicas, self.options.wait_timeout
        if not wanted or (commands and all(command[0] == b"PUBLISH" for command in commands)):
            return self.pipeline(group, commands)
        with self._lock:
            try:
                *replies, copies = self._followed(group, commands, (b"WAIT", wanted, int(seconds * 1000)))
                for reply in (*replies, copies):
                    if isinstance(reply, Exception):
                        raise reply
            except CONNECTION_ERRORS:
                self.lost = True
                raise
        if copies < wanted:
            raise NotReplicated(wanted, copies, seconds)
        return replies

    def replicate(self, group: str, what: str) -> None:
        """With the option `wait_replicas`, wait until replicas have what was sent last; go on without them when
        it takes too long.
        """
        try:
            self.write(group, [])
        except NotReplicated as exc:
            logger.warning("%s: %s", what, exc)

    def _followed(self, group: str, commands: Sequence[Command], after: Command) -> list[Any]:
        """Replies to commands and to one that follows them, those of errors included."""
        return self.wire(group).pipeline([*commands, after], raise_errors=False)

    def run(self, group: str, script: Script, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        with self._lock:
            try:
                return scripts.run(self.wire(group), script, keys, arguments)
            except CONNECTION_ERRORS:
                self.lost = True
                raise

    def hand_back(self, group: str, tags: Sequence[str], *, counted: bool) -> int:
        """Put held messages, oldest first, back to the heads of their queues; returns how many."""
        total = 0
        with self._lock:
            try:
                # The last ones first: each goes to the head, so the oldest end up in front.
                for start in reversed(range(0, len(tags), HAND_BACK_BATCH)):
                    batch = tags[start : start + HAND_BACK_BATCH]
                    total += settling.hand_back(self.wire(group), self.keys, group, batch, counted=counted)
            except CONNECTION_ERRORS:
                self.lost = True
                raise
        return total

    # -- settlements

    def settle(self, settlement: Settlement) -> None:
        """Note a settlement; `flush`, the end of the tick or the keeper sends it."""
        self.settlements.append(settlement)

    def take_settlements(self) -> list[Settlement]:
        """All that is noted; the caller has to send it, or to put it back with `put_back`."""
        taken = []
        pop = self.settlements.popleft
        try:
            while True:
                taken.append(pop())
        except IndexError:
            return taken

    def put_back(self, settlements: Sequence[Settlement]) -> None:
        self.settlements.extendleft(reversed(settlements))

    def flush(self) -> None:
        """Send every settlement now and wait until the server has it.

        Raises:
            redis.exceptions.ConnectionError: Everything stays noted.
        """
        settlements = self.take_settlements()
        if not settlements:
            return
        try:
            with self._lock:
                send_settlements(self.wire, self.keys, settlements)
        except CONNECTION_ERRORS:
            self.put_back(settlements)
            self.lost = True
            raise
        except BaseException:
            self.put_back(settlements)
            raise

    # -- owner

    def reserve(self, count: int) -> int:
        """Numbers for the tags of one claim; returns the first."""
        with self._lock:
            first = self._number
            self._number += count
            return first

    def revive(self) -> None:
        """Go on after a lost connection that the program did not close: under a new owner id."""
        with self._lock:
            self.owner = uuid4().hex
            self._number = 0
            self.lost = False
            # It may still be open, to a master that has become a replica.
            self._wire.close()

    def close(self) -> None:
        with self._lock:
            self._wire.close()


def send_settlements(wires: Any, keys: Keys, settlements: Sequence[Settlement]) -> None:
    """Send settlements, one round trip per group.

    Args:
        wires: Gives the connection for a group.
        keys: Names on the server.
        settlements: What to send.
    """
    by_wire: dict[Link, list[Command]] = {}
    for group, command in settling.commands(settlements, keys):
        by_wire.setdefault(wires(group), []).append(command)
    for wire, batch in by_wire.items():
        for reply in wire.pipeline(batch, raise_errors=False):
            if isinstance(reply, Exception):
                if not str(reply).startswith("NOSCRIPT"):
                    raise reply
                wire.pipeline([(b"SCRIPT", b"LOAD", script.source) for script in ALL])
                wire.pipeline(batch)
                break
