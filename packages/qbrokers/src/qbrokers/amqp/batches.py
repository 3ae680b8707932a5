"""What `kombu.Producer.batch` collects messages in."""

from __future__ import annotations

from typing import Any, Protocol

from qbrokers.batching import Publication


class Publisher(Protocol):
    """The channel."""

    def publish_many(self, publications: list[Publication]) -> None: ...

    def basic_publish(self, msg: Any, exchange: str, routing_key: str, **options: Any) -> None: ...


class PublishBatch:
    """Messages held until there are `max_size` of them, or `flush`.

    Args:
        channel: Where they go.
        max_size: Most messages held.
    """

    def __init__(self, channel: Publisher, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._held: list[Publication] = []

    def publish(self, message: Any, exchange: str = "", routing_key: str = "", **options: Any) -> None:
        """Hold a message; one with options of its own is published at once, after those held."""
        if any(options.values()):
            self.flush()
            self.channel.basic_publish(message, exchange, routing_key, **options)
            return
        self._held.append(Publication(message, exchange, routing_key))
        if len(self._held) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Publish what is held; see `publish_many` for the errors."""
        held, self._held = self._held, []
        self.channel.publish_many(held)

    def discard(self) -> None:
        """Forget what is held."""
        self._held = []

    def close(self) -> None:
        """The batch is over; everything was flushed or discarded."""
