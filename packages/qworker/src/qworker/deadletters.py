"""Messages that go back to their queue, or into `<queue>.dead`, and what their headers tell about them.

A delivery is *lost* when it ended with the death of the child or worker that had it. Lost deliveries are counted;
`broker_max_deliveries` of them, and the message is put aside. Retries and clean returns do not count.

| who died | how it is counted |
|---|---|
| a child | the message is put back with one more in the header `x-lost-deliveries`, on every transport |
| the worker, on Redis and SQLite | header `x-delivery-count`, by the broker |
| the worker, on AMQP | by the flag `redelivered`: a copy that counts one more replaces the message |
| the worker, on any other transport | not at all: kombu's other transports lose, or just repeat, what it had |

The flag does not tell why a message comes again. So a message that is returned cleanly is flagged once at most, and
what this worker returned when its connection was lost is not counted when it comes here again. After a loss the flags
are not counted at all until a message comes without: a RabbitMQ that has crashed flags everything it had.

A channel of ours moves a message in one step. Elsewhere a copy is published before the message is acknowledged, so a
crash in between leaves two, never none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from qcore.edge import kombu
from qworker.state import run_of

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)

DELIVERY_COUNT = "x-delivery-count"
LOST = "x-lost-deliveries"
FIRST_LOST = "x-first-lost"
LAST_LOST = "x-last-lost"
LAST_NODE = "x-last-node"
REDELIVERED = "redelivered"
PREFIX = "x-dead-letter-"
SUFFIX = ".dead"
DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"

_COPIED_PROPERTIES = ("correlation_id", "reply_to", "message_id", "type", "app_id")


def too_many_lost(lost: int) -> str:
    """Why a message is not run again."""
    times = "delivery" if lost == 1 else "deliveries"
    return f"{lost} {times} ended with the death of the process that had the task, so it is not run again"


class DeadLetters:
    """Moves the messages of one consumer.

    Args:
        consumer: Whose messages they are.
    """

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self._declared: set[str] = set()
        self._generation = -1

    # -- back to the queue

    def recorded(self, message: Any) -> int:
        """How many deliveries were lost before, as far as that is written down for good."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        return _number(headers, LOST) + (_number(headers, DELIVERY_COUNT) if moves(message.channel) else 0)

    def lost(self, message: Any) -> int:
        """How many deliveries were lost before, with those that only the flag `redelivered` tells of."""
        recorded = self.recorded(message)
        if moves(message.channel) or not message.delivery_info.get("redelivered"):
            return recorded
        state = self.consumer.state
        task_id = message.headers.get("id")
        if task_id in state.requests or run_of(message.headers) in state.unacknowledged:
            return recorded
        if task_id in state.returned:
            state.returned.discard(task_id)
            return recorded
        if state.telling is not None and message.delivery_info.get("consumer_tag") not in state.telling:
            return recorded
        return recorded + max(_number(message.headers, DELIVERY_COUNT), 1)

    def put_back(
        self,
        message: Any,
        lost: int | None = None,
        node: str | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        """Return a message to its queue.

        Args:
            message: A message that is not answered yet.
            lost: How many of its deliveries were lost; None: as its headers say.
            node: Who lost the last one, if it was this worker.
            changes: Headers to set, or to remove where the value is None.
        """
        headers = message.headers
        known = self.recorded(message)
        total = known if lost is None else lost
        if not moves(message.channel) and total == known and LOST not in headers and not changes:
            self.consumer.state.returned.add(headers.get("id"))
            self.consumer.reject_message(message, requeue=True)
            return
        written: dict[str, Any] = {**(changes or {}), REDELIVERED: True, LOST: total or None}
        if total > known:
            written |= {FIRST_LOST: headers.get(FIRST_LOST) or _now(), LAST_LOST: _now(), LAST_NODE: node}
        self._answer(message, self._requeue, written)

    def _requeue(self, message: Any, changes: dict[str, Any]) -> None:
        if moves(message.channel):
            message.channel.requeue(message.delivery_tag, {**changes, DELIVERY_COUNT: 0})
        else:
            self._copy(message, self.queue_of(message), {**changes, DELIVERY_COUNT: None})
        message._state = "REQUEUED"

    # -- aside

    def put_aside(self, message: Any, reason: str, lost: int | None = None, node: str | None = None) -> None:
        """Move a message into `<queue>.dead`, with its history in headers; a queue that has a dead-letter exchange of
        its own gets the message rejected, which sends it there.

        Args:
            message: A message that is not answered yet.
            reason: One line for the operator.
            lost: How many of its deliveries were lost; None: as its headers say.
            node: Who had it last; None: as its headers say, else this worker.
        """
        queue = self.queue_of(message)
        queues = self.consumer.app.amqp.queues
        if queue in queues and DEAD_LETTER_EXCHANGE in (queues[queue].queue_arguments or {}):
            self.consumer.reject_message(message)
            return
        changes = self._history(message, queue, reason, lost, node)
        if self._answer(message, self._put_aside, changes):
            logger.info(
                "A message is put aside in %s%s (%s); look at it with `qcli dlq show`, run it with `qcli dlq replay`.",
                queue,
                SUFFIX,
                reason,
            )

    def _put_aside(self, message: Any, changes: dict[str, Any]) -> None:
        if moves(message.channel):
            message.channel.dead_letter(message.delivery_tag, changes[PREFIX + "reason"], changes)
        else:
            queue = self.queue_of(message) + SUFFIX
            self._declare(queue)
            self._copy(message, queue, changes)
        message._state = "REJECTED"

    def _history(
        self, message: Any, queue: str, reason: str, lost: int | None, node: str | None
    ) -> dict[str, Any]:
        headers = message.headers if isinstance(message.headers, dict) else {}
        info = message.delivery_info
        total = self.recorded(message) if lost is None else lost
        now = _now()
        last = now if total > self.recorded(message) else headers.get(LAST_LOST) or now
        return {
            PREFIX + "reason": reason[:1000],
            PREFIX + "queue": queue,
            PREFIX + "exchange": info.get("exchange") or "",
            PREFIX + "routing-key": info.get("routing_key") or "",
            PREFIX + "at": now,
            PREFIX + "deliveries": total,
            PREFIX + "first-death": (headers.get(FIRST_LOST) or last) if total else None,
            PREFIX + "last-death": last if total else None,
            PREFIX + "node": node or headers.get(LAST_NODE) or self.consumer.hostname,
        }

    # -- both

    def _answer(self, message: Any, move: Any, changes: dict[str, Any]) -> bool:
        consumer = self.consumer
        try:
            move(message, changes)
        except KeyError as exc:
            logger.warning("A message is not held any more, so it comes again: %s", exc)
        except consumer.broker_errors as exc:
            consumer.broker_error = exc
        else:
            return True
        return False

    def _copy(self, message: Any, queue: str, changes: dict[str, Any]) -> None:
        """Publish a copy with changed headers, then acknowledge; on one channel, so the broker keeps that order."""
        headers = {**message.headers, **changes}
        if not getattr(message, "errors", None):
            headers.pop("compression", None)  # kombu has decompressed the body
        properties = message.properties
        kombu("kombu").Producer(message.channel, auto_declare=False).publish(
            message.body if isinstance(message.body, (bytes, str)) else bytes(message.body or b""),
            exchange="",
            routing_key=queue,
            content_type=message.content_type,
            content_encoding=message.content_encoding or "utf-8",
            headers={
                name: value for name, value in headers.items() if value is not None or name not in changes
            },
            priority=properties.get("priority") or 0,
            delivery_mode=2,
            **{name: properties[name] for name in _COPIED_PROPERTIES if properties.get(name)},
        )
        self.consumer.ack_message(message)

    def _declare(self, queue: str) -> None:
        consumer = self.consumer
        if self._generation != consumer.generation:
            self._generation = consumer.generation
            self._declared.clear()
        if queue in self._declared:
            return
        self._declared.add(queue)
        # A channel of its own: an error about the queue closes the channel on which it is declared.
        channel = consumer.connection.channel()
        try:
            kombu("kombu").Queue(queue, durable=True, channel=channel).queue_declare()
        except consumer.connection.channel_errors as exc:
            logger.debug("Queue %s is there already, with arguments of its own: %s", queue, exc)
        else:
            channel.close()

    def queue_of(self, message: Any) -> str:
        """Name of the queue that a message was taken from."""
        name = getattr(message, "queue", None)
        if isinstance(name, str) and name:
            return name
        info = message.delivery_info
        consumer = self.consumer
        tags = {} if consumer.task_consumer is None else consumer.task_consumer._active_tags
        for queue, tag in tags.items():
            if tag == info.get("consumer_tag"):
                return str(queue)
        return self._queue_bound(info.get("exchange") or "", info.get("routing_key") or "")

    def _queue_bound(self, exchange: str, key: str) -> str:
        if not exchange and key:
            return key
        queues = self.consumer.app.amqp.queues
        of_exchange = [q for q in queues.consume_from.values() if q.exchange and q.exchange.name == exchange]
        for queue in of_exchange:
            if queue.routing_key == key:
                return str(queue.name)
        if of_exchange:
            return str(of_exchange[0].name)
        return str(self.consumer.app.conf.task_default_queue)


def moves(channel: Any) -> bool:
    """Whether the channel moves a held message in one step (`qbrokers.batching.RewritingChannel`)."""
    return hasattr(channel, "requeue")


def _number(headers: Mapping[str, Any], name: str) -> int:
    value = headers.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
