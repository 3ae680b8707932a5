"""What a connection has declared: enough to know which queue a message is for."""

from __future__ import annotations

from attrs import define, field


@define
class Topology:
    """Exchanges, queues and bindings declared through one connection."""

    exchange_types: dict[str, str] = field(factory=dict)
    quorum_queues: set[str] = field(factory=set)
    _bindings: dict[tuple[str, str], set[str]] = field(factory=dict)

    def bound(self, queue: str, exchange: str, routing_key: str) -> None:
        """A queue was bound."""
        self._bindings.setdefault((exchange, routing_key), set()).add(queue)

    def forget(self, queue: str) -> None:
        """A queue was deleted."""
        self.quorum_queues.discard(queue)
        for queues in self._bindings.values():
            queues.discard(queue)

    def only_queue(self, exchange: str, routing_key: str) -> str | None:
        """The queue that messages with this address go to; None when there may be several."""
        if not exchange:
            return routing_key
        if self.exchange_types.get(exchange, "direct") != "direct":
            return None
        queues = self._bindings.get((exchange, routing_key), set())
        return next(iter(queues)) if len(queues) == 1 else None

    def wildcards(self, queue: str) -> list[str]:
        """Routing keys of the queue's bindings to exchanges that are not direct."""
        return sorted(
            key
            for (exchange, key), queues in self._bindings.items()
            if queue in queues and self.exchange_types.get(exchange, "direct") != "direct"
        )
