"""Redis Cluster: the keys of one queue share a slot, so every script runs on the server that has the queue.

Queues are claimed one by one, so the order of priorities holds within a queue, and the queues take turns.
The layout of the keys is ours alone (`keys.ClusterKeys`): stock kombu knows no cluster. A slot that moved,
and a server that was replaced, count as a lost connection: the next one reads the map of slots again.
"""

from __future__ import annotations

from typing import Any

from redis import exceptions
from redis.crc import key_slot

from qbrokers.redis.channel import Channel as RedisChannel
from qbrokers.redis.intake import Intake
from qbrokers.redis.keeper import Keeper
from qbrokers.redis.keys import ClusterKeys, Keys
from qbrokers.redis.options import Options
from qbrokers.redis.servers import Server, cluster_of
from qbrokers.redis.session import Session
from qbrokers.redis.transport import Transport
from qbrokers.redis.wire import CONNECTION_ERRORS, Wire

Node = tuple[str, int]
READ_ERRORS: tuple[type[BaseException], ...] = (*CONNECTION_ERRORS, exceptions.ResponseError)


class SlotMap:
    """Which server has which slots, read when first asked.

    Args:
        server: Where the cluster is.
        keys: Names on it.
        timeout_seconds: How long a reply may take.
    """

    def __init__(self, server: Server, keys: Keys, timeout_seconds: float) -> None:
        self._server = server
        self._keys = keys
        self._timeout = timeout_seconds
        self._ranges: list[tuple[int, int, Node]] = []

    def node(self, group: str) -> Node:
        """Server of a group of queues; of the empty group, any that is there.

        Raises:
            redis.exceptions.ConnectionError: No server of the cluster can be reached, or nobody has the slot.
        """
        if not self._ranges:
            self._ranges = self._read()
        if not group:
            return self._ranges[0][2]
        slot = key_slot(self._keys.unacked(group).encode())
        for first, last, node in self._ranges:
            if first <= slot <= last:
                return node
        self._ranges = []
        raise exceptions.ConnectionError(f"no server of the cluster has slot {slot} (queue {group})")

    def forget(self) -> None:
        self._ranges = []

    def _read(self) -> list[tuple[int, int, Node]]:
        failure: BaseException | None = None
        for host, port in self._server.addresses:
            wire = Wire(self._server.at(host, port), self._timeout)
            try:
                slots = wire.call(b"CLUSTER", b"SLOTS")
            except READ_ERRORS as exc:
                failure = exc
                continue
            finally:
                wire.close()
            ranges = [_range(entry, host) for entry in slots]
            if ranges:
                return ranges
        raise exceptions.ConnectionError(f"no map of the Redis Cluster at {self._server.identity}: {failure}")


def _range(entry: Any, asked: str) -> tuple[int, int, Node]:
    first, last, (host, port, *_), *_ = entry
    name = host.decode() if host else ""
    return int(first), int(last), (name or asked, int(port))


class Wires:
    """One connection per server of the cluster."""

    def __init__(self, server: Server, slots: SlotMap, timeout_seconds: float) -> None:
        self._server = server
        self._slots = slots
        self._timeout = timeout_seconds
        self._wires: dict[Node, Wire] = {}

    def get(self, group: str) -> Wire:
        node = self._slots.node(group)
        wire = self._wires.get(node)
        if wire is None:
            wire = self._wires[node] = self.new(node)
        return wire

    def new(self, node: Node) -> Wire:
        return Wire(self._server.at(*node), self._timeout)

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
        self._slots.forget()


class ClusterSession(Session):
    """A session with a connection to each server that it needs."""

    def __init__(self, server: Server, keys: Keys, options: Options) -> None:
        super().__init__(server, keys, options)
        self.slots = SlotMap(server, keys, options.socket_timeout)
        self.wires = Wires(server, self.slots, options.socket_timeout)

    def wire(self, group: str) -> Wire:
        return self.wires.get(group)

    def revive(self) -> None:
        self.wires.close()
        super().revive()

    def close(self) -> None:
        self.wires.close()


class ClusterKeeper(Keeper):
    """A keeper that renews leases on every server that has one of the queues."""

    def __init__(self, server: Server, keys: Keys, options: Options) -> None:
        super().__init__(server, keys, options)
        self._wires = Wires(server, SlotMap(server, keys, options.socket_timeout), options.socket_timeout)

    def wire(self, group: str) -> Wire:
        return self._wires.get(group)

    def close_wires(self) -> None:
        self._wires.close()


class ClusterTransport(Transport):
    """Redis Cluster: `rediscluster://host:6379;rediscluster://host2:6379`, some of its servers."""

    driver_name = "rediscluster"
    keeper_class = ClusterKeeper
    session_class = ClusterSession
    keys_class = ClusterKeys

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self._intakes: dict[Node, Intake] = {}

    def server(self) -> Server:
        return cluster_of(self.client, self.options, self.default_port)

    @property
    def _cluster(self) -> ClusterSession:
        session = self.session
        assert isinstance(session, ClusterSession)
        return session

    def intakes(self) -> list[Intake]:
        return list(self._intakes.values())

    def drop_intakes(self) -> None:
        self._intakes.clear()

    def intake(self, channel: RedisChannel, group: str = "") -> Intake:
        session = self._cluster
        node = session.slots.node(group)
        intake = self._intakes.get(node)
        if intake is None:
            wire = session.wires.new(node)
            intake = Intake(session, self.keeper, wire, lambda group: session.slots.node(group) == node)
            self._intakes[node] = intake
        return intake

    def consume(self, channel: RedisChannel, queues: list[tuple[str, bool]]) -> None:
        """Each queue is a group of its own."""
        wanted: dict[str, list[tuple[str, bool]]] = {}
        for queue, no_ack in queues:
            wanted.setdefault(self.session.keys.group(queue), []).append((queue, no_ack))
        for intake in self.intakes():
            for group in intake.groups(channel):
                if group not in wanted:
                    intake.consume(channel, group, [])
        for group, members in wanted.items():
            self.intake(channel, group).consume(channel, group, members)
