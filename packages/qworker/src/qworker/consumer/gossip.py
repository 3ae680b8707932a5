"""Step Gossip: what the workers know of each other, and elections among them.

Every worker listens to the `worker-*` events of the others. That costs messages in the square of their number;
`--without-gossip` switches it off.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attrs import define, field

from qcore.edge import kombu
from qcore.events import event_exchange
from qcore.refusal import following
from qworker import bootsteps
from qworker.consumer.mingle import COMPATIBLE_DRIVERS, compatible

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
# In memory, the workers are those of one process: of use to tests.
GOSSIP_DRIVERS = COMPATIBLE_DRIVERS | {"memory"}
# A worker is taken for lost after so many heartbeats were missed.
MISSED_HEARTBEATS = 2.0

Callback = Callable[["Node"], object]


@define(eq=False)
class Node:
    """Another worker, as its events describe it."""

    hostname: str
    freq: float = 2.0
    clock: int = 0
    active: int = 0
    processed: int = 0
    pid: int | None = None
    loadavg: Any = None
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None
    last_seen: float = 0.0
    """Monotonic seconds."""

    @property
    def alive(self) -> bool:
        """Whether its heartbeats come in time."""
        return time.monotonic() < self.last_seen + self.freq * MISSED_HEARTBEATS

    def update(self, event: dict[str, Any]) -> None:
        """Take over the fields of an event."""
        for name in (
            "freq",
            "clock",
            "active",
            "processed",
            "pid",
            "loadavg",
            "sw_ident",
            "sw_ver",
            "sw_sys",
        ):
            if event.get(name) is not None:
                setattr(self, name, event[name])
        self.last_seen = time.monotonic()


@define
class Nodes:
    """The other workers: `gossip.state`."""

    workers: dict[str, Node] = field(factory=dict)

    def alive_workers(self) -> Iterator[Node]:
        """Those whose heartbeats come in time."""
        return (node for node in list(self.workers.values()) if node.alive)


@define
class Callbacks:
    """`gossip.on`: sets of callables, each called with a `Node`."""

    node_join: set[Callback] = field(factory=set)
    node_leave: set[Callback] = field(factory=set)
    node_lost: set[Callback] = field(factory=set)


class Gossip(bootsteps.ConsumerStep):
    """Makes `consumer.gossip`.

    Attributes:
        state: The other workers, and this one once its own events come back.
        on: Callbacks for workers that join, leave or get lost.
    """

    label = "Gossip"
    requires = ("qworker.consumer.events:Events",)

    def __init__(
        self,
        c: Consumer,
        without_gossip: bool = False,
        heartbeat_interval: float | None = None,
        interval: float = CHECK_SECONDS,
        **kwargs: Any,
    ) -> None:
        self.enabled = not without_gossip and compatible(c.app, GOSSIP_DRIVERS)
        self.app = c.app
        self.consumer = c
        self.interval = interval
        self.message_ttl = heartbeat_interval
        self.state = Nodes()
        self.on = Callbacks()
        self.election_handlers: dict[str, Callable[[Any], object]] = {"task": self.call_task}
        self._elections: defaultdict[str, list[tuple[int, str, str, Any]]] = defaultdict(list)
        self._own_elections: dict[str, set[str]] = {}
        self._entry: Any = None
        c.gossip = self
        super().__init__(c, **kwargs)

    def start(self, c: Consumer) -> None:
        """Listen."""
        super().start(c)
        self.consumer = c
        self._entry = c.timer.call_repeatedly(self.interval, self.check_lost)

    def stop(self, c: Consumer) -> None:
        """Stop listening."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None
        super().stop(c)

    def get_consumers(self, channel: Any) -> list[Any]:
        """A consumer of the events of all workers."""
        conf = self.app.conf
        ttl = self.message_ttl if self.message_ttl is not None else conf.event_queue_ttl
        queue = kombu().Queue(
            f"{conf.event_queue_prefix}.{uuid4()}",
            exchange=event_exchange(channel.connection.client, conf.event_exchange),
            routing_key="worker.#",
            auto_delete=not conf.event_queue_durable,
            durable=conf.event_queue_durable,
            exclusive=conf.event_queue_exclusive,
            message_ttl=ttl,
            expires=conf.event_queue_expires,
        )
        return [kombu().Consumer(channel, queues=[queue], on_message=self.on_message, no_ack=True)]

    # -- events

    def on_message(self, message: Any) -> None:
        """One event message of some worker."""
        try:
            if (message.headers or {}).get("hostname") == self.consumer.hostname:
                return
            payload = message.payload
            for event in payload if isinstance(payload, list) else [payload]:
                self.on_event(event)
        except Exception:
            # Another program's message: it is left out, nothing else is lost.
            logger.exception("gossip: cannot use an event message")

    def on_event(self, event: dict[str, Any]) -> None:
        """One event of another worker."""
        kind, hostname = event.get("type"), event.get("hostname")
        if not isinstance(kind, str) or not kind.startswith("worker-") or not hostname:
            return
        if self.app.clock is not None and event.get("clock"):
            self.app.clock.adjust(event["clock"])
        if kind == "worker-elect":
            self.on_elect(event)
            return
        if kind == "worker-elect-ack":
            self.on_elect_ack(event)
            return
        if kind == "worker-offline":
            node = self.state.workers.pop(hostname, None)
            if node is not None:
                logger.debug("%s left", hostname)
                self._call(self.on.node_leave, node)
            return
        node = self.state.workers.get(hostname)
        joined = node is None
        if node is None:
            node = self.state.workers[hostname] = Node(hostname)
        node.update(event)
        if joined:
            logger.debug("%s joined the party", hostname)
            self._call(self.on.node_join, node)

    def check_lost(self) -> None:
        """Forget the workers whose heartbeats stopped."""
        for node in list(self.state.workers.values()):
            if not node.alive:
                del self.state.workers[node.hostname]
                logger.info("missed heartbeat from %s", node.hostname)
                self._call(self.on.node_lost, node)

    def _call(self, callbacks: set[Callback], node: Node) -> None:
        for callback in list(callbacks):
            try:
                callback(node)
            except Exception:
                # Foreign code: the others still run.
                logger.exception("gossip: the callback %r raised", callback)

    # -- elections

    def election(self, id: str, topic: str, action: Any = None) -> None:
        """Let the workers elect one of them; it runs the handler of `topic` with `action`."""
        self._own_elections[id] = set()
        dispatcher = self.consumer.event_dispatcher
        if dispatcher is None:
            return
        clock = self.app.clock.forward()
        dispatcher.send("worker-elect", id=id, topic=topic, action=action, cver=1)
        self._enter(id, clock, self.consumer.hostname, topic, action)

    def on_elect(self, event: dict[str, Any]) -> None:
        """Another worker stands for election: note it, and answer."""
        try:
            id, clock, hostname = event["id"], event["clock"], event["hostname"]
            topic, action = event["topic"], event["action"]
        except KeyError as exc:
            logger.error("gossip: election request missing field %s", exc)
            return
        self._enter(id, clock, hostname, topic, action)
        self.consumer.event_dispatcher.send("worker-elect-ack", id=id)

    def _enter(self, id: str, clock: int, hostname: str, topic: str, action: Any) -> None:
        self._elections[id].append((clock, hostname, topic, action))
        self._elections[id].sort(key=lambda entry: entry[:2])
        if id in self._own_elections and not any(self.state.alive_workers()):
            self._decide(id)

    def on_elect_ack(self, event: dict[str, Any]) -> None:
        """A worker has seen the request; when all have, the smallest clock wins."""
        id = event.get("id")
        if id not in self._own_elections:
            return
        acks = self._own_elections[id]
        acks.add(event["hostname"])
        if acks >= {node.hostname for node in self.state.alive_workers()}:
            self._decide(id)

    def _decide(self, id: str) -> None:
        self._own_elections.pop(id, None)
        candidates = self._elections.pop(id, [])
        if not candidates:
            return
        _, leader, topic, action = candidates[0]
        if leader != self.consumer.hostname:
            logger.info("node %s elected for %r", leader, id)
            return
        logger.info("I won the election %r", id)
        handler = self.election_handlers.get(topic)
        if handler is None:
            logger.error("Unknown election topic %r", topic)
        else:
            handler(action)

    def call_task(self, task: Any) -> None:
        """Send the signature that an election of the topic `task` was about."""
        try:
            with following():
                self.app.signature(task).apply_async()
        except Exception:
            # The broker or the signature: the election is over either way.
            logger.exception("Could not call task %r", task)
