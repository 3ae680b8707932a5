"""Which server of a cluster has which slots."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from redis import exceptions
from redis.crc import key_slot

from qbrokers.redis.keys import Keys
from qbrokers.redis.servers import Server
from qbrokers.redis.wire import CONNECTION_ERRORS, Wire

Node = tuple[str, int]
READ_ERRORS: tuple[type[BaseException], ...] = (*CONNECTION_ERRORS, exceptions.ResponseError)

MAX_REMEMBERED = 10_000
"""Most groups whose server is remembered; names of reply queues never come again."""


@frozen
class _Map:
    """One reading of the map.

    Attributes:
        ranges: First slot, last slot and master of each range.
        nodes: Masters, then replicas.
        found: Server of each group that was looked up.
    """

    ranges: tuple[tuple[int, int, Node], ...]
    nodes: tuple[Node, ...]
    found: dict[str, Node] = field(factory=dict)


class SlotMap:
    """The map of slots, read when first asked.

    Args:
        server: Where the cluster is.
        keys: Names on it.
        timeout_seconds: How long a reply may take.
    """

    def __init__(self, server: Server, keys: Keys, timeout_seconds: float) -> None:
        self._server = server
        self._keys = keys
        self._timeout = timeout_seconds
        self._map: _Map | None = None
        self._known: list[Node] = list(server.addresses)

    def node(self, group: str) -> Node:
        """Master that has the books of a group of queues.

        Raises:
            redis.exceptions.ConnectionError: No server of the cluster can be reached, or nobody has the slot.
        """
        current = self._current()
        node = current.found.get(group)
        if node is None:
            node = self._look_up(current, group)
            if len(current.found) >= MAX_REMEMBERED:
                current.found.clear()
            current.found[group] = node
        return node

    def nodes(self) -> tuple[Node, ...]:
        """All servers, masters first."""
        return self._current().nodes

    def forget(self) -> None:
        """The map is out of date: read it again when next asked."""
        self._map = None

    def _look_up(self, current: _Map, group: str) -> Node:
        slot = key_slot(self._keys.unacked(group).encode())
        for first, last, node in current.ranges:
            if first <= slot <= last:
                return node
        self.forget()
        raise exceptions.ConnectionError(f"no server of the cluster has slot {slot} (queue {group})")

    def _current(self) -> _Map:
        current = self._map
        if current is None:
            current = self._map = self._read()
        return current

    def _read(self) -> _Map:
        failure: BaseException | None = None
        for node in tuple(self._known):
            try:
                read = _parsed(self._ask(node), node[0])
            except READ_ERRORS as exc:
                failure = exc
                # Whoever does not answer is asked last the next time.
                self._known = [*(other for other in self._known if other != node), node]
                continue
            if read.ranges:
                known = (*read.nodes, *self._server.addresses)
                self._known = [node, *(other for other in dict.fromkeys(known) if other != node)]
                return read
        raise exceptions.ConnectionError(f"no map of the Redis Cluster at {self._server.identity}: {failure}")

    def _ask(self, node: Node) -> Any:
        wire = Wire(self._server.at(*node), self._timeout)
        try:
            return wire.call(b"CLUSTER", b"SLOTS")
        finally:
            wire.close()


def _parsed(reply: Any, asked: str) -> _Map:
    ranges, masters, replicas = [], [], []
    for first, last, *servers in reply:
        found = [((host.decode() if host else "") or asked, int(port)) for host, port, *_ in servers]
        ranges.append((int(first), int(last), found[0]))
        masters.append(found[0])
        replicas += found[1:]
    return _Map(tuple(ranges), tuple(dict.fromkeys(masters + replicas)))
