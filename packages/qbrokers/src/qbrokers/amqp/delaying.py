"""Messages for later: when they go through the delay queues, and how they come back.

A publisher asks for it with the property `eta_timestamp`. What only has the header `eta`, as tasks do, is put
in by the consumer that gets it: it publishes a copy into the ladder, and acknowledges the message when the broker
has confirmed the copy. So every client can send tasks for later, and a consumer without the ladder can take them.
"""

from __future__ import annotations

import logging
import math
import time
from datetime import UTC, datetime
from typing import Any

from qbrokers.amqp import ladder
from qbrokers.amqp.bases import ChannelError, NotFound, PreconditionFailed
from qbrokers.amqp.contract import Channel, Connection
from qbrokers.amqp.messages import Delivered, copy_of, without_travel

logger = logging.getLogger(__name__)

DUE_HEADER = "x-eta-timestamp"
"""Header with the epoch seconds of a message whose queue its publisher could not know."""


def due_time(headers: dict[str, Any]) -> float | None:
    """Epoch seconds of the header `eta` (ISO 8601, UTC when it has no offset); None without a usable one."""
    eta = headers.get("eta")
    if eta and isinstance(eta, str):
        try:
            moment = datetime.fromisoformat(eta)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    due = headers.get(DUE_HEADER)
    return float(due) if isinstance(due, (int, float)) else None


def delay_of(due: float, now: float) -> int:
    """Whole seconds until `due`, none of them too few."""
    return max(math.ceil(due - now), 0)


class Delays:
    """The delay queues, as one connection uses them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._declared = False
        self._usable = connection.options.native_delayed_delivery
        self._bound: set[str] = set()
        self._waiting: list[tuple[Channel, Delivered]] = []

    # -- publishing

    def route(self, msg: Any, exchange: str, routing_key: str, delay: int) -> tuple[Any, str, str]:
        """Where a message that is due in `delay` seconds is published to."""
        if delay <= 0:
            return msg, exchange, routing_key
        queue = self._connection.topology.only_queue(exchange, routing_key)
        if queue is not None and self.reaches(queue):
            return msg, ladder.FIRST_EXCHANGE, ladder.routing_key(delay, ladder.address_of(queue))
        headers = dict(msg.properties.get("application_headers") or {})
        headers.setdefault(DUE_HEADER, float(msg.properties["eta_timestamp"]))
        msg.properties["application_headers"] = headers
        return msg, exchange, routing_key

    # -- consuming

    def wants(self, due: float, now: float) -> bool:
        """Whether a message that is due then waits in the broker."""
        return self._usable and due - now > self._connection.options.eta_hold_seconds

    def put_back(self, channel: Channel, delivered: Delivered) -> None:
        """Put a message that was just delivered into the delay queues, at the end of this tick."""
        self._waiting.append((channel, delivered))

    def send_waiting(self) -> None:
        """Publish what waits; each message is acknowledged when the broker has its copy."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        waiting = [each for each in waiting if not each[0].closed]
        known = {queue: self.reaches(queue) for queue in {delivered.queue for _, delivered in waiting}}
        with self._connection.corked():
            for channel, delivered in waiting:
                if known[delivered.queue]:
                    self._send(channel, delivered)
        for channel, delivered in waiting:
            if not known[delivered.queue]:
                self._give_up(channel, delivered)

    def _send(self, channel: Channel, delivered: Delivered) -> None:
        copy = copy_of(delivered.msg, {})
        due = due_time(copy.properties["application_headers"]) or 0.0
        whole = "eta" in copy.properties["application_headers"]
        # A worker holds a task for the last second; another consumer must not get its message early.
        delay = math.floor(due - time.time()) if whole else delay_of(due, time.time())
        key = ladder.routing_key(delay, ladder.address_of(delivered.queue))

        def answered(taken: bool) -> None:
            if channel.closed:
                return
            if taken:
                channel.basic_ack(delivered.tag)
            else:
                self._give_up(channel, delivered)

        channel.select_confirms()
        channel.send_publish(copy, ladder.FIRST_EXCHANGE, key, False, False, answered)

    def _give_up(self, channel: Channel, delivered: Delivered) -> None:
        """The consumer gets the message now, and waits itself."""
        if delivered.consumer_tag not in channel.callbacks:
            channel.basic_reject(delivered.tag, requeue=True)
            return
        channel.book.hand_over(delivered.tag)
        channel.hand_out(delivered)

    def origin(self, exchange: str, routing_key: str, queue: str, msg: Any) -> tuple[str, str]:
        """The address of a message that came through the delay queues: its queue; else what is given."""
        if not ladder.came_through(exchange, routing_key):
            return exchange, routing_key
        properties = msg.properties
        properties["application_headers"] = without_travel(properties.get("application_headers") or {})
        return "", queue

    # -- declaring

    def reaches(self, queue: str) -> bool:
        """See to it that delayed messages for a queue arrive there; False when that cannot be done."""
        if not self._usable:
            return False
        if queue in self._bound:
            return True
        try:
            ladder.routing_key(0, ladder.address_of(queue))
            self._ensure_ladder()
            self._bind(queue, ladder.exact_binding_key(queue))
        except (ChannelError, ValueError) as exc:
            logger.warning(
                "Delayed delivery to the queue %s is not possible (%s); consumers hold its messages themselves.",
                queue,
                exc,
            )
            if not isinstance(exc, (NotFound, ValueError)):
                self._usable = False
            return False
        self._bound.add(queue)
        return True

    def forget(self, queue: str) -> None:
        """A queue was deleted, its binding with it."""
        self._bound.discard(queue)

    def serve_celery(self, queue: str) -> None:
        """Before consuming from a quorum queue: bind it as Celery's clients expect that use the ladder."""
        topology = self._connection.topology
        if queue not in topology.quorum_queues or not self._usable:
            return
        keys = topology.wildcards(queue)
        if keys and self.reaches(queue):
            for key in keys:
                self._bind(queue, ladder.binding_key(key))

    def declare_plain_queue(self, queue: str) -> None:
        """Declare a durable queue; one of another kind is left as it is."""
        with self._connection.channel() as channel:
            try:
                channel.queue_declare(queue, durable=True, auto_delete=False)
            except PreconditionFailed:
                logger.debug("the queue %s exists with other arguments", queue)

    def _bind(self, queue: str, key: str) -> None:
        with self._connection.channel() as channel:
            channel.queue_bind(queue, ladder.LAST_EXCHANGE, key)

    def _ensure_ladder(self) -> None:
        if self._declared:
            return
        with self._connection.channel() as channel:
            try:
                channel.exchange_declare(ladder.FIRST_EXCHANGE, "topic", passive=True)
                channel.exchange_declare(ladder.LAST_EXCHANGE, "topic", passive=True)
            except NotFound:
                ladder.declare(channel, self._connection.options.native_delayed_delivery_queue_type)
        self._declared = True
