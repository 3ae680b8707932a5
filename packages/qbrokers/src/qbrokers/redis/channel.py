"""The channel: kombu's virtual channel over Redis, with leases, batches and delayed messages."""

from __future__ import annotations

import logging
import os
from binascii import b2a_base64
from collections.abc import Sequence
from typing import Any

from qbrokers.batching import Publication
from qbrokers.redis import codec, messages, publishing
from qbrokers.redis.bases import BaseChannel, rabbitmq_arguments
from qbrokers.redis.keeper import Keeper
from qbrokers.redis.messages import BadEnvelope
from qbrokers.redis.messages import Message as RedisMessage
from qbrokers.redis.options import Options
from qbrokers.redis.qos import QoS
from qbrokers.redis.scripts import BIND
from qbrokers.redis.session import Session
from qbrokers.redis.settling import BACK, DELAY, FRONT, Settlement
from qbrokers.redis.wire import CHANNEL_ERRORS, CONNECTION_ERRORS, Command

logger = logging.getLogger(__name__)

BINDING_LIFE_FACTOR = 2
MIN_BINDING_LIFE_MS = 3_600_000
CLOSE_WAIT_SECONDS = 2.0


class Channel(BaseChannel):  # type: ignore[misc]
    """A channel of the Redis transport; satisfies `qbrokers.batching.BatchChannel`."""

    QoS = QoS
    Message = RedisMessage
    supports_fanout = True
    supports_delay = True
    do_restore = True
    closed: bool

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.session: Session = connection.session
        self.keeper: Keeper = connection.keeper
        self.keys = self.session.keys
        self.options: Options = self.session.options
        self.transport = connection
        self.under_way = 0
        self.auto_delete_queues: set[str] = set()
        self._pid = os.getpid()
        self._limits: dict[str, publishing.Limits] = connection.limits
        self._refresh_at = 0.0
        self._fanout: dict[str, set[tuple[str, str]]] = {}
        self._receivers: dict[str, tuple[Any, bool]] = {}
        self._undelivered = 0
        self._local_tags = 0
        self.deadletter_queue = self.options.deadletter_queue

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
        """Make an envelope; the priority in it is the one on the wire."""
        properties = dict(properties or {})  # kombu passes the same one again when it publishes again
        messages.mark_priority(properties, properties.get("priority", priority), self.options)
        properties.setdefault("delivery_info", {})
        return {
            "body": body,
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": headers or {},
            "properties": properties,
        }

    def complete(self, message: dict[str, Any], exchange: str, routing_key: str) -> None:
        """Encode the body and write tag and address into an envelope."""
        encoding = self.body_encoding
        body = message["body"]
        if encoding == "base64":
            data = body.encode() if isinstance(body, str) else body
            message["body"] = b2a_base64(data, newline=False).decode()
        else:
            message["body"], encoding = self.encode_body(body, encoding)
        properties = message["properties"]
        properties["body_encoding"] = encoding
        properties["delivery_tag"] = self._next_delivery_tag()
        info = properties["delivery_info"]
        info["exchange"] = exchange
        info["routing_key"] = routing_key

    _inplace_augment_message = complete

    def _next_delivery_tag(self) -> str:
        """A random UUID (version 4), made in a third of the time that the module uuid takes."""
        digits = os.urandom(16).hex()
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def limits(self, queue: str) -> publishing.Limits | None:
        """Limits of a queue that this connection declared."""
        limits = self._limits.get(queue)
        return publishing.REPLY_LIMITS if limits is None and queue.endswith(".pidbox") else limits

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Publish one message; it is in the queue when this returns."""
        if exchange:
            super().basic_publish(message, exchange, routing_key, **kwargs)
            return
        self.complete(message, exchange, routing_key)
        self._put(routing_key, message)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        commands = publishing.put(self.keys, queue, message, self.limits(queue))
        self.session.pipeline(self.keys.group(queue), commands)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any) -> None:
        channel = self.keys.channel(exchange, routing_key)
        self.session.call("", b"PUBLISH", channel, codec.dumps(message))

    def create_publish_batch(self, max_size: int) -> publishing.PublishBatch:
        """What `kombu.Producer.batch` collects messages in."""
        return publishing.PublishBatch(self, max_size)

    def publish_many(self, publications: Sequence[Publication]) -> None:
        """Put all the messages, in order, in one round trip: all of them, or none and an exception.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost; whether the messages arrived is not
            known.
        """
        publishing.publish_many(self, publications)

    # -- queues and exchanges

    def prepare_queue_arguments(self, arguments: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Queue arguments from `kombu.Queue(expires=..., message_ttl=..., max_length=...)`."""
        return dict(rabbitmq_arguments(arguments, **kwargs))

    def _new_queue(self, queue: str, auto_delete: bool = False, **kwargs: Any) -> None:
        if auto_delete:
            self.auto_delete_queues.add(queue)
        limits = publishing.Limits.of(kwargs.get("arguments"))
        if limits is None:
            self._limits.pop(queue, None)
        else:
            self._limits[queue] = limits

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            self._fanout.setdefault(queue, set()).add((exchange, (routing_key or "").replace("#", "*")))
        group = self.keys.exchange_group(exchange)
        self.session.run(group, BIND, *self._binding(exchange, routing_key, pattern, queue))

    def _binding(
        self, exchange: str, routing_key: str, pattern: str, queue: str
    ) -> tuple[list[str], list[Any]]:
        keys, limits = self.keys, self._limits.get(queue)
        life: int | str = ""
        if limits is not None and limits.expires_ms:
            life = max(limits.expires_ms * BINDING_LIFE_FACTOR, MIN_BINDING_LIFE_MS)
        names = [keys.binding(exchange), keys.permanent_binding(exchange), keys.binding_deadlines(exchange)]
        return names, [keys.binding_member(routing_key, pattern, queue), exchange, life]

    def get_table(self, exchange: str) -> list[tuple[str, ...]]:
        members = self.session.call(
            self.keys.exchange_group(exchange), b"SMEMBERS", self.keys.binding(exchange)
        )
        return [tuple(member.decode().split(self.keys.separator)) for member in members]

    def queue_unbind(
        self, queue: str, exchange: str = "", routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        """Remove a binding, here and on the server."""
        self.state.binding_delete(queue, exchange, routing_key)
        _, pattern, _ = self.typeof(exchange).prepare_bind(queue, exchange, routing_key, arguments)
        self._forget_binding(exchange, routing_key, pattern, queue)

    def _forget_binding(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        member = self.keys.binding_member(routing_key, pattern, queue)
        names = (self.keys.binding(exchange), self.keys.permanent_binding(exchange))
        self.session.pipeline(self.keys.exchange_group(exchange), [(b"SREM", name, member) for name in names])

    def _delete(
        self, queue: str, exchange: str, routing_key: str, pattern: str, *args: Any, **kwargs: Any
    ) -> None:
        self._forget_binding(exchange, routing_key, pattern, queue)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> int:
        """Delete a queue with its messages and its bindings; returns the number of messages.

        Messages that consumers hold stay held.
        """
        size = self._size(queue)
        if if_empty and size:
            return 0
        super().queue_delete(queue, **kwargs)
        self._purge(queue)
        self._limits.pop(queue, None)
        self._fanout.pop(queue, None)
        self.auto_delete_queues.discard(queue)
        return size

    def _size(self, queue: str) -> int:
        commands: list[Command] = [(b"LLEN", name) for name in self.keys.lists(queue)]
        return sum(self.session.pipeline(self.keys.group(queue), commands))

    def _purge(self, queue: str) -> int:
        lists = self.keys.lists(queue)
        delayed = self.keys.delayed(queue)
        commands: list[Command] = [(b"MULTI",), *((b"LLEN", name) for name in lists), (b"ZCARD", delayed)]
        commands += [(b"DEL", *lists, delayed), (b"EXEC",)]
        *counts, _ = self.session.pipeline(self.keys.group(queue), commands)[-1]
        return int(sum(counts))

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return bool(self.session.call(self.keys.group(queue), b"EXISTS", *self.keys.lists(queue)))

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
                self.transport.intake(self).listen(self, queue, self.keys.channel(exchange, routing_key))
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
        step = self.keys.step(messages.wire_priority(codec.loads(raw)["properties"]))
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
            self._undelivered += 1
            self.transport.inbox.append((self, message.queue, message, None))
            self.transport.wake()
        else:
            self._settle(message, self._way_back(message.queue, delivery_tag, message.raw, counted=True))

    def dead_letter(self, delivery_tag: str, reason: str) -> None:
        """Put a held message aside, into the list `<queue>.dead`, with the reason as a header; one step on
        the server.

        Args:
            delivery_tag: Tag of a message that this channel delivered.
            reason: One line for the operator.

        Raises:
            KeyError: The message is not held.
        """
        message = self.qos.pop(delivery_tag)
        if message is None:
            raise KeyError(
                f"no message is held under {delivery_tag!r}: it is settled already, or of another channel"
            )
        raw = messages.with_reason(message.raw, reason)
        group = self.keys.group(message.queue)
        self._settle(message, Settlement(delivery_tag, group, BACK, self.keys.dead(message.queue), 0, raw))

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
        except BadEnvelope:
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
