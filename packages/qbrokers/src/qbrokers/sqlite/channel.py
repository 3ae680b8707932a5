"""A kombu channel on a SQLite broker."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amqp.exceptions import NotFound, PreconditionFailed
from amqp.protocol import queue_declare_ok_t
from kombu.message import Message as KombuMessage
from kombu.transport import base

from qbrokers.batching import DEAD_LETTER_REASON_HEADER, DEAD_LETTER_SUFFIX, Publication

from .codec import UNREADABLE, decode, encode
from .messages import Addressed, Claim
from .session import Session
from .sharing import Subscription

_EXCHANGE_TYPES = ("direct", "topic", "fanout")


class Channel(base.StdChannel):
    """What kombu's producers, consumers and queues talk to; `qbrokers.batching` says what it has on top."""

    Message = KombuMessage
    supports_delay = True
    supports_fanout = True
    do_restore = True

    def __init__(self, session: Session, channel_id: int) -> None:
        self.connection = session
        self.channel_id = channel_id
        self.closed = False
        self.prefetch_count = 0
        self._unacked: dict[int, int] = {}
        self._tags: set[str] = set()

    # -- exchanges and queues

    def exchange_declare(
        self, exchange: str | None = None, type: str = "direct", passive: bool = False, **_: Any
    ) -> None:
        """Create an exchange.

        Raises:
            NotFound: Asked passively, and there is none.
            PreconditionFailed: It exists with another type, or there is no such type.
        """
        type = type or "direct"
        exchange = exchange or f"amq.{type}"
        if passive:
            if exchange not in self.connection.store.topology().exchanges:
                raise NotFound(f"no exchange {exchange!r}")
            return
        if type not in _EXCHANGE_TYPES:
            raise PreconditionFailed(f"exchange type {type!r} is not one of {', '.join(_EXCHANGE_TYPES)}")
        self.connection.store.declare_exchange(exchange, type)

    def exchange_delete(self, exchange: str, **_: Any) -> None:
        """Delete an exchange and its bindings; the queues stay."""
        self.connection.store.delete_exchange(exchange)

    def exchange_bind(self, destination: str, source: str = "", routing_key: str = "", **_: Any) -> None:
        """Not offered: raises PreconditionFailed."""
        raise PreconditionFailed("exchanges cannot be bound to exchanges here; bind the queue to both")

    exchange_unbind = exchange_bind

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        **_: Any,
    ) -> queue_declare_ok_t:
        """Create a queue; return its name and the numbers of waiting messages and consumers.

        A queue that is `auto_delete` or `exclusive` is deleted with its last consumer. The arguments
        `x-expires` and `x-message-ttl` (milliseconds) are kept.

        Raises:
            NotFound: Asked passively, and there is none.
        """
        queue = queue or f"amq.gen-{uuid.uuid4()}"
        store = self.connection.store
        if passive and queue not in store.topology().queues:
            raise NotFound(f"no queue {queue!r}")
        messages, consumers = store.declare_queue(queue, auto_delete or exclusive, arguments or {})
        return queue_declare_ok_t(queue, messages, consumers)

    def queue_bind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **_: Any
    ) -> None:
        """Let an exchange route to a queue; raises NotFound when one of them is missing."""
        self.connection.store.bind(queue, exchange or "amq.direct", routing_key or "")

    def queue_unbind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **_: Any
    ) -> None:
        """Undo `queue_bind`."""
        self.connection.store.unbind(queue, exchange or "amq.direct", routing_key or "")

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> int:
        """Delete a queue unless a condition forbids it; return the number of messages deleted with it."""
        return self.connection.store.delete_queue(queue, if_unused, if_empty)

    def queue_purge(self, queue: str, **_: Any) -> int:
        """Delete the waiting messages of a queue, due or not; return their number."""
        return self.connection.store.purge(queue)

    def prepare_queue_arguments(self, arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Translate kombu's `expires`, `message_ttl` (seconds) ... into AMQP arguments."""
        prepared: dict[str, Any] = base.to_rabbitmq_queue_arguments(arguments, **options)
        return prepared

    def after_reply_message_received(self, queue: str) -> None:
        """Delete a reply queue that has served."""
        self.queue_delete(queue)

    def list_bindings(self) -> list[tuple[str, str, str]]:
        """Return (queue, exchange, routing key) of all bindings."""
        known = self.connection.store.topology()
        names = {record.id: name for name, record in known.queues.items()}
        return [
            (names[binding.queue_id], exchange, binding.routing_key)
            for exchange, bindings in known.bindings.items()
            for binding in bindings
        ]

    # -- publishing

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Put the parts of a message together for `basic_publish`."""
        properties = {} if properties is None else properties
        properties.setdefault("priority", priority or 0)
        return {
            "body": body,
            "content-type": content_type,
            "content-encoding": content_encoding,
            "headers": headers or {},
            "properties": properties,
        }

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any) -> None:
        """Store a message; it is durable when this returns.

        Raises:
            NotFound: There is no such exchange.
            BrokerUnavailable, BrokerUnusable: See `qbrokers.errors`; nothing was stored.
        """
        exchange, routing_key = exchange or "", routing_key or ""
        self.connection.store.put([Addressed(encode(message, exchange, routing_key), exchange, routing_key)])

    def publish_many(self, publications: Sequence[Publication]) -> None:
        """Store messages in one transaction: all, or none and an exception."""
        self.connection.store.put(
            [
                Addressed(encode(p.message, p.exchange, p.routing_key), p.exchange, p.routing_key)
                for p in publications
            ]
        )

    # -- consuming

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], object], consumer_tag: str = "", **_: Any
    ) -> str:
        """Have `callback` called with every message of a queue; return the consumer's tag."""
        tag = consumer_tag or f"ctag-{uuid.uuid4()}"
        self._tags.add(tag)
        self.connection.subscribe(
            lambda id: Subscription(tag, queue, id, bool(no_ack), callback, self), tag, queue
        )
        return tag

    def basic_cancel(self, consumer_tag: str, **_: Any) -> None:
        """Stop a consumer. Messages that it has seen stay its own until they are acknowledged."""
        if consumer_tag in self._tags:
            self._tags.remove(consumer_tag)
            self.connection.unsubscribe(consumer_tag)

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> KombuMessage | None:
        """Return the next message of a queue, or None."""
        while (claim := self.connection.fetch_one(queue, no_ack)) is not None:
            tag = next(self.connection.delivery_tags)
            if not no_ack:
                self.remember(tag, claim.id)
            message = self.open_message(queue, claim, tag, "")
            if message is not None:
                return message
        return None

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Limit the messages that this channel's consumers have unacknowledged; 0 means no limit."""
        self.prefetch_count = prefetch_count

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Say that a message (or all up to it) is done."""
        self.connection.settle(done=self._settled(delivery_tag, multiple))

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Give a message back to its queue, or drop it."""
        ids = self._settled(delivery_tag, False)
        self.connection.settle(**{"returned" if requeue else "done": ids})

    def release(self, delivery_tags: Sequence[int]) -> None:
        """Put messages that were never begun back, without counting the delivery."""
        with self.connection.lock:
            ids = [self._unacked.pop(tag) for tag in delivery_tags if tag in self._unacked]
        self.connection.settle(untouched=ids)

    def dead_letter(self, delivery_tag: int, reason: str, headers: Mapping[str, Any] | None = None) -> None:
        """Put a message aside, into the queue `<queue>.dead`, with the reason as a header; written at once.

        Args:
            delivery_tag: Tag of a message that this channel delivered.
            reason: One line for the operator.
            headers: Further headers; None as a value removes one.

        Raises:
            KeyError: The message is not held.
        """
        changes = {**(headers or {}), DEAD_LETTER_REASON_HEADER: reason}
        self.connection.move(self._unacked[delivery_tag], DEAD_LETTER_SUFFIX, changes)
        self.forget(delivery_tag)

    def requeue(self, delivery_tag: int, headers: Mapping[str, Any]) -> None:
        """Put a message at the end of its queue with changed headers, without counting the delivery; written at
        once.

        Args:
            delivery_tag: Tag of a message that this channel delivered.
            headers: Headers to set; None as a value removes one.

        Raises:
            KeyError: The message is not held.
        """
        self.connection.move(self._unacked[delivery_tag], "", headers)
        self.forget(delivery_tag)

    def basic_recover(self, requeue: bool = True) -> None:
        """Give all unacknowledged messages back to their queues."""
        with self.connection.lock:
            ids = list(self._unacked.values())
            self._unacked.clear()
        self.connection.settle(returned=ids)
        self.flush()

    def flush(self) -> None:
        """Write the acknowledgements and rejections of this connection in one transaction."""
        self.connection.flush()

    def message_to_python(self, message: KombuMessage) -> KombuMessage:
        """Return the message: it is made already."""
        return message

    def close(self) -> None:
        """Stop the consumers and give back what is not acknowledged."""
        if self.closed:
            return
        self.closed = True
        try:
            for tag in list(self._tags):
                self.basic_cancel(tag)
            self.basic_recover()
        finally:
            if self in self.connection.channels:
                self.connection.channels.remove(self)

    # -- for the session

    def room(self) -> int:
        """How many more messages may be given to this channel."""
        if not self.prefetch_count:
            return self.connection.options.batch_size
        return self.prefetch_count - len(self._unacked)

    def remember(self, tag: int, message_id: int) -> None:
        """Note an unacknowledged message."""
        self._unacked[tag] = message_id

    def forget(self, tag: int) -> None:
        """The message was taken back before its consumer saw it."""
        self._unacked.pop(tag, None)

    def forget_all(self) -> None:
        """Consumers and messages belong to another process."""
        self._unacked.clear()
        self._tags.clear()

    def open_message(self, queue: str, claim: Claim, tag: int, consumer_tag: str) -> KombuMessage | None:
        """What a consumer gets; None when it cannot be read and was put aside."""
        try:
            return self.make_message(claim, tag, consumer_tag)
        except UNREADABLE as error:
            self.connection.put_aside(queue, claim, error)
            self.forget(tag)
            return None

    def make_message(self, claim: Claim, tag: int, consumer_tag: str) -> KombuMessage:
        """Build what a consumer gets."""
        payload = decode(claim.head, claim.body, tag, consumer_tag, claim.earlier_deliveries)
        properties = payload["properties"]
        return KombuMessage(  # type: ignore[no-untyped-call]
            channel=self,
            body=payload["body"],
            delivery_tag=tag,
            content_type=payload["content-type"],
            content_encoding=payload["content-encoding"],
            headers=payload["headers"],
            properties=properties,
            delivery_info=properties["delivery_info"],
            postencode="utf-8",
        )

    def _settled(self, tag: int, multiple: bool) -> list[int]:
        with self.connection.lock:
            if multiple:
                tags = [known for known in self._unacked if not tag or known <= tag]
            else:
                tags = [tag] if tag in self._unacked else []
            if not tags and not multiple and self.connection.usable:
                raise PreconditionFailed(f"unknown delivery tag {tag!r}: acknowledged or returned before")
            return [self._unacked.pop(known) for known in tags]
