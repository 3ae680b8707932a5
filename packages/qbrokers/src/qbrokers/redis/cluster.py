"""Redis Cluster: the keys of one queue share a slot, so every script runs on the server that has the queue.

Queues are claimed one by one, so the order of priorities holds within a queue, and the queues take turns.
The layout of the keys is ours alone (`keys.ClusterKeys`): stock kombu knows no cluster.

A server that turns a command down because a slot moves, or because another one took over, has done nothing: what
waits for its reply follows (`routes`), a claim is made again where its queue is now, acknowledgements are left to the
keeper. A connection that is lost is lost for the whole session, as with one server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from qbrokers.redis.channel import Channel as RedisChannel
from qbrokers.redis.intake import Intake
from qbrokers.redis.keeper import Keeper
from qbrokers.redis.keys import ClusterKeys, Keys
from qbrokers.redis.options import Options
from qbrokers.redis.routes import Route, Routes
from qbrokers.redis.servers import Server, cluster_of
from qbrokers.redis.session import Session
from qbrokers.redis.settling import Settlement
from qbrokers.redis.slots import Node, SlotMap
from qbrokers.redis.transport import Transport
from qbrokers.redis.wire import CONNECTION_ERRORS, Command, Wire

PATIENCE_SECONDS = 2.0
"""How long publishing and other calls follow a queue that moves, before they fail as on a lost connection."""

KEEPER_PATIENCE_SECONDS = 0.3
"""The keeper comes back by itself, and has other queues to look after."""

REARRANGE_SECONDS = 0.1
"""The map of slots is read at most so often while claims are turned down."""


class ClusterSession(Session):
    """A session with a connection to each server that it needs."""

    def __init__(self, server: Server, keys: Keys, options: Options) -> None:
        super().__init__(server, keys, options)
        self.slots = SlotMap(server, keys, options.socket_timeout)
        self.routes = Routes(server, self.slots, options.socket_timeout, PATIENCE_SECONDS)

    def wire(self, group: str) -> Route:
        return self.routes.to(group)

    def any_wire(self) -> Wire:
        with self._lock:
            return self.routes.any()[1]

    def any_node(self) -> Node:
        """A server that can be reached."""
        with self._lock:
            return self.routes.any()[0]

    def settle(self, settlement: Settlement) -> None:
        if settlement.group:  # a tag of no queue is held by nobody
            super().settle(settlement)

    def _followed(self, group: str, commands: Sequence[Command], after: Command) -> list[Any]:
        return self.routes.exchange(group, commands, after)

    def revive(self) -> None:
        with self._lock:
            self.routes.close()
            super().revive()

    def close(self) -> None:
        with self._lock:
            self.routes.close()


class ClusterKeeper(Keeper):
    """A keeper that renews leases on every server that has one of the queues."""

    def __init__(self, server: Server, keys: Keys, options: Options) -> None:
        super().__init__(server, keys, options)
        slots = SlotMap(server, keys, options.socket_timeout)
        self._routes = Routes(server, slots, options.socket_timeout, KEEPER_PATIENCE_SECONDS)

    def wire(self, group: str) -> Route:
        return self._routes.to(group)

    def place(self, group: str) -> object:
        return self._routes.slots.node(group)

    def settle(self, settlement: Settlement) -> None:
        if settlement.group:
            super().settle(settlement)

    def close_wires(self) -> None:
        self._routes.close()

    def after_failure(self) -> None:
        """The connections to the other servers are sound; the map may not be."""
        self._routes.slots.forget()


class ClusterTransport(Transport):
    """Redis Cluster: `rediscluster://host:6379;rediscluster://host2:6379`, some of its servers."""

    driver_name = "rediscluster"
    keeper_class = ClusterKeeper
    session_class = ClusterSession
    keys_class = ClusterKeys

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self._intakes: dict[Node, Intake] = {}
        self._rearrange_at = 0.0

    def server(self) -> Server:
        return cluster_of(self.client, self.options, self.default_port)

    @property
    def _cluster(self) -> ClusterSession:
        session = self.session
        assert isinstance(session, ClusterSession)
        return session

    def intakes(self) -> list[Intake]:
        """That which claimed longest ago first: whoever comes first may use up the prefetch count."""
        return sorted(self._intakes.values(), key=lambda intake: intake.claimed_at)

    def drop_intakes(self) -> None:
        self._intakes.clear()

    def intake(self, channel: RedisChannel, group: str = "") -> Intake:
        """The asynchronous connection to the server of a group; for fanout channels, to any."""
        if not group and self._intakes:
            listening = [intake for intake in self._intakes.values() if intake.listeners.active]
            return (listening or self.intakes())[0]
        session = self._cluster
        return self._intake_at(session.slots.node(group) if group else session.any_node())

    def _intake_at(self, node: Node) -> Intake:
        intake = self._intakes.get(node)
        if intake is None:
            session = self._cluster
            wire = session.routes.new(node)
            intake = self._intakes[node] = Intake(session, self.keeper, wire, _has(session.slots, node))
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
            here = self.intake(channel, group)
            for intake in self.intakes():
                if intake is not here:
                    intake.consume(channel, group, [])
            here.consume(channel, group, members)

    def rearrange(self) -> None:
        """Read the map of slots again when a claim was turned down, and make the claims where their queues are."""
        now = monotonic()
        if now < self._rearrange_at or not any(intake.turned_down for intake in self.intakes()):
            return
        self._rearrange_at = now + REARRANGE_SECONDS
        session = self._cluster
        session.slots.forget()
        try:
            for intake in self.intakes():
                for claiming in intake.take_strays():
                    self._intake_at(session.slots.node(claiming.group)).adopt(claiming)
        except CONNECTION_ERRORS:
            session.lost = True
            raise
        self._drop_idle()

    def _drop_idle(self) -> None:
        for node, intake in tuple(self._intakes.items()):
            if not intake.active and not intake.waiting:
                self._unwatch(intake)
                intake.wire.close()
                del self._intakes[node]


def _has(slots: SlotMap, node: Node) -> Callable[[str], bool]:
    return lambda group: slots.node(group) == node
