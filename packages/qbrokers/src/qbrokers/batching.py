"""What a channel of qbrokers can do beyond kombu's channel: batches, delayed delivery, leases.

A kombu channel acknowledges and publishes one message per round trip. A channel that satisfies
`BatchChannel` buffers acknowledgements, and sends them with everything else in as few round trips as
possible when `flush()` is called. A program looks for the protocol and uses it when present:

    if isinstance(channel, BatchChannel):
        channel.publish_many([Publication(message, "", "celery") for message in messages])

Rules for every implementation:

* Acks and rejects are buffered. They are sent by `flush()`, at the end of each tick of a kombu hub, before a
  blocking `drain_events` waits, and when the channel is closed.
* A buffer never delays anything by waiting for more: an idle program has empty buffers.
* `basic_publish` is durable when it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from attrs import frozen

ETA_PROPERTY = "eta_timestamp"
"""Message property: epoch seconds (float) before which the broker keeps the message."""

DELIVERY_COUNT_HEADER = "x-delivery-count"
"""Message header: how often the message was delivered before this time (0 for the first delivery)."""

DEAD_LETTER_REASON_HEADER = "x-dead-letter-reason"
"""Header of a message in a queue `<queue>.dead`: one line that says why it was put aside."""

DEAD_LETTER_SUFFIX = ".dead"
"""Added to a queue's name for the queue of what was put aside."""

DEFAULT_LEASE_SECONDS = 30.0
"""How long the messages of a consumer that vanished stay its own, unless its death is proved earlier."""


@frozen
class Publication:
    """A message on its way to an exchange.

    Attributes:
        message: What `channel.prepare_message(...)` made: a dict with `body`, `content-type`,
            `content-encoding`, `headers` and `properties`. The channel may complete it in place.
        exchange: Name of the exchange; the empty string sends to the queue named by `routing_key`.
        routing_key: Routing key, or the queue's name.
    """

    message: dict[str, Any]
    exchange: str
    routing_key: str


@runtime_checkable
class BatchChannel(Protocol):
    """The optional part of a channel; every channel of qbrokers has it."""

    supports_delay: bool
    """Messages with the property `eta_timestamp` (or a Celery client's header `eta`) wait in the broker."""

    def flush(self) -> None:
        """Send everything buffered (acks, rejects) now, in as few round trips as possible.

        Raises:
            One of the transport's `connection_errors`; what was buffered then stays buffered.
        """

    def release(self, delivery_tags: Sequence[Any]) -> None:
        """Put delivered messages that were never begun back, without counting the delivery."""

    def dead_letter(self, delivery_tag: Any, reason: str) -> None:
        """Put a delivered message aside, into the queue `<queue>.dead`, with `reason` in a header.

        A channel that is a `RewritingChannel` takes further headers as a third argument.

        Raises:
            KeyError: The message is not held by this channel.
        """

    def publish_many(self, publications: Sequence[Publication]) -> None:
        """Put all the messages, in order, in one round trip: all of them, or none and an exception."""


@runtime_checkable
class RewritingChannel(Protocol):
    """A channel that moves a held message and changes its headers in one step; those of Redis and SQLite do."""

    def requeue(self, delivery_tag: Any, headers: Mapping[str, Any]) -> None:
        """Put a delivered message at the end of its queue, without counting the delivery.

        Args:
            delivery_tag: Tag of a message that this channel delivered.
            headers: Headers to set; None as a value removes the header.

        Raises:
            KeyError: The message is not held by this channel.
        """

    def dead_letter(self, delivery_tag: Any, reason: str, headers: Mapping[str, Any] | None = None) -> None:
        """Put a delivered message aside, see `BatchChannel.dead_letter`; `headers` as in `requeue`.

        Raises:
            KeyError: The message is not held by this channel.
        """
