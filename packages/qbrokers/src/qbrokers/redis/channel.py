"""The channel: kombu's virtual channel over Redis, with leases, batches and delayed messages."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from qbrokers import jsoncodec
from qbrokers.redis import messages, publishing
from qbrokers.redis.keeper import Keeper
from qbrokers.redis.messages import Message as RedisMessage
from qbrokers.redis.qos import QoS
from qbrokers.redis.sending import MIN_BINDING_LIFE_MS, SendingChannel
from qbrokers.redis.settling import BACK, DELAY, FRONT, Settlement
from qbrokers.redis.wire import CHANNEL_ERRORS, CONNECTION_ERRORS, Command

logger = logging.getLogger(__name__)

CLOSE_WAIT_SECONDS = 2.0


class Channel(SendingChannel):
    """A channel of the Redis transport; satisfies `qbrokers.batching.BatchChannel`."""

    QoS = QoS
    Message = RedisMessage
    do_restore = True
    closed: bool

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.keeper: Keeper = connection.keeper
        self.transport = connection
        self.under_way = 0
        self._pid = os.getpid()
        self._refresh_at = 0.0
        self._rebind_at = monotonic() + MIN_BINDING_LIFE_MS / 3000
        self._receivers: dict[str, tuple[Any, bool]] = {}
        self._undelivered = 0
        self._local_tags = 0

    # -- consuming

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any
    ) -> None:
        """Begin to take messages of a queue; `callback(message)` gets each of them."""
        self._tag_to_queue[consumer_tag] = queue
        self._consumers.add(consumer_tag)
        self._receivers[queue] = (callback, bool(no_ack))
        if queue in self._fanout:
            for exchange, routing_key in self._fanout[queue]:
                self.transport.intake(self).listeners.add(
                    self, queue, self.keys.channel(exchange, routing_key)
                )
        else:
            self._active_queues.append(queue)
            self._consume_from_queues()
        self.keeper.consuming(self.session, self, {self.keys.group(name) for name in self._active_queues})
        self.transport.wake()

    def basic_cancel(self, consumer_tag: str) -> None:
        """End taking messages; those under way go back to the queue."""
        if consumer_tag not in self._consumers:
            return
        self._consumers.remove(consumer_tag)
        queue = self._tag_to_queue.pop(consumer_tag)
        if queue in self._tag_to_queue.values():
            return
        self._receivers.pop(queue, None)
        if queue in self._active_queues:
            self._active_queues.remove(queue)
            self._consume_from_queues()
        else:
            self.transport.unlisten(self, queue)

    def _consume_from_queues(self) -> None:
        wanted = [(queue, self._receivers[queue][1]) for queue in dict.fromkeys(self._active_queues)]
        self.transport.consume(self, wanted)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> RedisMessage | None:
        """Take one message now; None when the queue is empty."""
        while True:
            taken = self.transport.take_one(self, queue, no_ack)
            if taken is None:
                return None
            raw, tag, server_time = taken
            if not no_ack:
                self.keeper.consuming(self.session, self, {self.keys.group(queue)})
            message = self._open(queue, raw, None if no_ack else tag, server_time)
            if message is not None:
                if not no_ack:
                    self.qos.append(message, message.delivery_tag)
                return message
            self.flush()

    def capacity(self) -> int:
        """How many more messages may be taken."""
        if self.closed:
            return 0
        limit = self.options.claim_limit
        free = self.qos.free
        if free is None:
            return limit - self.under_way - self._undelivered
        return int(min(limit, free - self.under_way - self._undelivered))

    def refreshing(self, now: float) -> list[Command]:
        """Commands that keep the consumed queues with `x-expires` alive; none when it is too early."""
        if now < self._refresh_at:
            return []
        if now >= self._rebind_at:
            self.refresh_bindings(tuple(self._receivers))
            self._rebind_at = now + MIN_BINDING_LIFE_MS / 3000
        lives = [
            (queue, limits.expires_ms)
            for queue in self._active_queues
            if (limits := self._limits.get(queue)) is not None and limits.expires_ms
        ]
        self._refresh_at = now + min((life for _, life in lives), default=10_000) / 3000
        return [command for queue, life in lives for command in publishing.expiring(self.keys, queue, life)]

    def claimed(self, queue: str, raw: bytes, tag: str, server_time: float) -> None:
        """A claim of the intake took a message."""
        receiver = self._receivers.get(queue)
        if receiver is None or self.closed:
            self.session.settle(self._way_back(queue, tag, raw, counted=False))
            return
        held_as = None if receiver[1] else tag
        message = self._open(queue, raw, held_as, server_time)
        if message is not None:
            self._undelivered += 1
            self.transport.inbox.append((self, queue, message, held_as))

    def broadcast(self, queue: str, raw: bytes) -> None:
        """A fanout message arrived. It is in no queue, so it is written in no books."""
        receiver = self._receivers.get(queue)
        if receiver is None:
            return
        try:
            message = RedisMessage(messages.open_envelope(raw), self, raw=raw, queue=queue)
        except messages.UNREADABLE as exc:
            logger.error("dropped a broadcast for %s that cannot be decoded: %s", queue, exc)
            return
        self._local_tags += 1
        message.delivery_tag = f"fanout:{self._local_tags}"
        self._undelivered += 1
        self.transport.inbox.append((self, queue, message, None))

    def deliver(self, queue: str, message: RedisMessage, tag: str | None) -> bool:
        """Give a message to its consumer; returns whether there was one."""
        self._undelivered -= 1
        receiver = self._receivers.get(queue)
        if receiver is None or self.closed:
            if tag is not None:
                self.session.settle(self._way_back(queue, tag, message.raw, counted=False))
            return False
        if not receiver[1]:
            self.qos.append(message, message.delivery_tag)
        receiver[0](message)
        return True

    def _open(self, queue: str, raw: bytes, tag: str | None, server_time: float) -> RedisMessage | None:
        """The message of an envelope; None when it is not to be delivered now."""
        try:
            envelope = messages.open_envelope(raw)
            if tag is not None and self._not_yet(queue, raw, tag, envelope, server_time):
                return None
            return RedisMessage(envelope, self, tag=tag, raw=raw, queue=queue)
        except messages.UNREADABLE as exc:
            self._put_aside_undecodable(queue, raw, tag, exc)
            return None

    def _not_yet(
        self, queue: str, raw: bytes, tag: str, envelope: dict[str, Any], server_time: float
    ) -> bool:
        properties = envelope["properties"]
        deadline = properties.get(messages.DEADLINE_PROPERTY)
        if isinstance(deadline, int | float) and deadline < server_time:
            self.session.settle(Settlement(tag, self.keys.group(queue)))
            return True
        if not self.options.delay_eta_headers:
            return False
        eta = messages.eta_of(envelope)
        if eta is None or eta - server_time <= self.options.eta_hold_seconds:
            return False
        step = self.keys.step(messages.wire_priority(jsoncodec.decode(raw)["properties"]))
        self.session.settle(
            Settlement(
                tag,
                self.keys.group(queue),
                DELAY,
                self.keys.delayed(queue),
                int(eta * 1000),
                b"%d:%s" % (step, raw),
            )
        )
        return True

    def _put_aside_undecodable(self, queue: str, raw: bytes, tag: str | None, exc: Exception) -> None:
        dead = self.keys.dead(queue)
        logger.error(
            "put aside in %s: what was in queue %s is no message (%s); look at it with LRANGE, "
            "and find who sends it",
            dead,
            queue,
            exc,
        )
        if tag is None:
            self.session.call(self.keys.group(queue), b"LPUSH", dead, raw)
        else:
            self.session.settle(Settlement(tag, self.keys.group(queue), BACK, dead, 0, raw))

    # -- settling

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge; sent with the next flush. Valid after the connection was lost, too."""
        if multiple:
            for tag in self._up_to(delivery_tag):
                self.basic_ack(tag)
            return
        message = self.qos.pop(delivery_tag)
        group = self.keys.group(message.queue) if message is not None else self._group_of(delivery_tag)
        self._settle(message, Settlement(delivery_tag, group))

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a message, or put it back at the end of its queue."""
        message = self.qos.pop(delivery_tag)
        if message is None and requeue:
            self.keeper.put_back([(delivery_tag, self._group_of(delivery_tag))], counted=True)
        elif message is None or not requeue:
            group = self.keys.group(message.queue) if message is not None else self._group_of(delivery_tag)
            self._settle(message, Settlement(delivery_tag, group))
        elif delivery_tag.startswith("fanout:"):
            self.broadcast(message.queue, message.raw)
            self.transport.wake()
        else:
            self._settle(message, self._way_back(message.queue, delivery_tag, message.raw, counted=True))

    def dead_letter(self, delivery_tag: str, reason: str, headers: Mapping[str, Any] | None = None) -> None:
        """Put a held message aside, into the list `<queue>.dead`, with the reason as a header; one step on
        the server.

        Args:
            delivery_tag: Tag of a message that this channel delivered.
            reason: One line for the operator.
            headers: Further headers; None as a value removes one.

        Raises:
            KeyError: The message is not held.
        """
        message = self._take(delivery_tag)
        changes = {**(headers or {}), messages.REASON_HEADER: reason}
        raw, _ = messages.with_headers(message.raw, changes)
        group = self.keys.group(message.queue)
        self._settle(message, Settlement(delivery_tag, group, BACK, self.keys.dead(message.queue), 0, raw))

    def requeue(self, delivery_tag: str, headers: Mapping[str, Any]) -> None:
        """Put a held message at the end of its queue with changed headers, without counting the delivery.

        Args:
            delivery_tag: Tag of a message that this channel delivered.
            headers: Headers to set; None as a value removes one.

        Raises:
            KeyError: The message is not held.
        """
        message = self._take(delivery_tag)
        raw, priority = messages.with_headers(message.raw, headers)
        group, key = self.keys.group(message.queue), self.keys.list_for(message.queue, priority)
        self._settle(message, Settlement(delivery_tag, group, BACK, key, 0, raw))

    def _take(self, delivery_tag: str) -> Any:
        message = self.qos.pop(delivery_tag)
        if message is None:
            raise KeyError(
                f"no message is held under {delivery_tag!r}: it is settled already, or of another channel"
            )
        return message

    def release(self, delivery_tags: Sequence[str]) -> None:
        """Put messages that were never begun back to the head of their queues, without counting the
        delivery.
        """
        for tag in reversed(delivery_tags):
            message = self.qos.pop(tag)
            if message is not None and message.raw is not None:
                back = self._way_back(message.queue, tag, message.raw, counted=False)
                self._settle(message, back._replace(mode=FRONT))

    def basic_recover(self, requeue: bool = False) -> None:
        """Put everything this channel holds back to the head of its queues."""
        if not requeue:
            super().basic_recover(requeue)
        by_group: dict[str, list[str]] = {}
        for tag, message in tuple(self.qos.held.items()):
            self.qos.pop(tag)
            if not tag.startswith("fanout:"):
                by_group.setdefault(self.keys.group(message.queue), []).append(tag)
        self.flush()
        for group, tags in by_group.items():
            self.session.hand_back(group, tags, counted=True)

    def flush(self) -> None:
        """Send acknowledgements and rejections now, in one round trip, and wait until the server has them.

        Raises:
            redis.exceptions.ConnectionError: They stay noted.
        """
        self.session.flush()

    def held_tags(self) -> list[str]:
        """Tags of the messages this channel holds (the keeper keeps them alive)."""
        undelivered = [tag for channel, _, _, tag in tuple(self.transport.inbox) if channel is self and tag]
        return [tag for tag in tuple(self.qos.held) if not tag.startswith("fanout:")] + undelivered

    def _way_back(self, queue: str, tag: str, raw: bytes | None, *, counted: bool) -> Settlement:
        group = self.keys.group(queue)
        try:
            envelope, priority = messages.returned(raw or b"", counted=counted)
        except messages.UNREADABLE:
            return Settlement(tag, group, BACK, self.keys.dead(queue), 0, raw or b"")
        mode = BACK if counted else FRONT
        return Settlement(tag, group, mode, self.keys.list_for(queue, priority), 0, envelope)

    def _settle(self, message: RedisMessage | None, settlement: Settlement) -> None:
        if settlement.tag.startswith("fanout:"):
            return
        if self.closed:
            self.keeper.settle(settlement)
        else:
            self.session.settle(settlement)
            self.transport.settled()

    def _group_of(self, delivery_tag: str) -> str:
        """Books of a message this channel does not hold any more: of a lost connection, or settled before."""
        message = self.qos.held.get(delivery_tag)
        return self.keys.group(message.queue) if message is not None else self.keeper.group_of(delivery_tag)

    def _up_to(self, delivery_tag: str) -> list[str]:
        tags = list(self.qos.held)
        return tags[: tags.index(delivery_tag) + 1] if delivery_tag in tags else [delivery_tag]

    # -- end

    def close(self) -> None:
        """End consuming and hand back what is held; after a lost connection it stays held for its
        acknowledgement.
        """
        if self.closed:
            return
        if self._pid != os.getpid():
            self.closed = True
            return
        for consumer_tag in list(self._consumers):
            self.basic_cancel(consumer_tag)
        try:
            if not self.session.lost:
                self._close_in_order()
        except (*CONNECTION_ERRORS, *CHANNEL_ERRORS) as exc:
            logger.warning(
                "closing did not finish: %s; what is held stays held, or goes back when it is dropped", exc
            )
            self.session.lost = True
        self.closed = True
        self._close_after_loss()
        if self.connection is not None:
            self.connection.close_channel(self)
        self.exchange_types = None

    def _close_in_order(self) -> None:
        self.transport.finish_claims(self, CLOSE_WAIT_SECONDS)
        for _, queue, message, tag in reversed(self.transport.take_inbox(self)):
            if tag is not None:
                self.session.settle(self._way_back(queue, tag, message.raw, counted=False))
        if self._qos is not None:
            self._qos.restore_unacked_once()
        self.flush()
        for queue in list(self._fanout):
            if queue in self.auto_delete_queues:
                self.queue_delete(queue)

    def _close_after_loss(self) -> None:
        """Whatever is left: undelivered messages go back, delivered ones are kept for their
        acknowledgement.
        """
        keeper, keys = self.keeper, self.keys
        left = [
            (tag, keys.group(queue))
            for _, queue, _, tag in self.transport.take_inbox(self)
            if tag is not None
        ]
        if left:
            keeper.put_back(left, counted=False)
        if self._qos is None:
            return
        self._qos._on_collect.cancel()
        held = [
            (tag, keys.group(message.queue), message)
            for tag, message in self._qos.held.items()
            if not tag.startswith("fanout:")
        ]
        self._qos.held.clear()
        if held:
            keeper.adopt(self.session, held)
