"""The part of the channel that sends: publishing, queues, exchanges and bindings."""

from __future__ import annotations

import logging
import os
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from typing import Any

from kombu.entity import TRANSIENT_DELIVERY_MODE

from qbrokers import jsoncodec
from qbrokers.batching import Publication
from qbrokers.redis import messages, publishing
from qbrokers.redis.bases import BaseChannel, rabbitmq_arguments
from qbrokers.redis.options import Options
from qbrokers.redis.scripts import BIND
from qbrokers.redis.session import Session
from qbrokers.redis.wire import Command

logger = logging.getLogger(__name__)

BINDING_PARTS = 3
BINDING_LIFE_FACTOR = 2
MIN_BINDING_LIFE_MS = 3_600_000


class SendingChannel(BaseChannel):  # type: ignore[misc]
    """A channel that publishes and declares; consuming is added by `channel.Channel`.

    Args:
        connection: The transport.
    """

    supports_fanout = True
    supports_delay = True

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.session: Session = connection.session
        self.keys = self.session.keys
        self.options: Options = self.session.options
        self.auto_delete_queues: set[str] = set()
        self.deadletter_queue = self.options.deadletter_queue
        self._limits: dict[str, publishing.Limits] = connection.limits
        self._fanout: dict[str, set[tuple[str, str]]] = {}

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
        lasting = message["properties"].get("delivery_mode") != TRANSIENT_DELIVERY_MODE
        send = self.session.write if lasting else self.session.pipeline
        send(self.keys.group(queue), commands)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any) -> None:
        channel = self.keys.channel(exchange, routing_key)
        self.session.call("", b"PUBLISH", channel, jsoncodec.encode(message))

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
        self.keys.check_queue(queue)
        if auto_delete:
            self.auto_delete_queues.add(queue)
        limits = publishing.Limits.of(kwargs.get("arguments"))
        if limits is None:
            self._limits.pop(queue, None)
        else:
            self._limits[queue] = limits

    def queue_bind(
        self, queue: str, exchange: str = "", routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        """Bind a queue. Declaring a queue that expires again refreshes its binding, which has a life, too."""
        exchange = exchange or "amq.direct"
        if queue in self._limits and self.state.has_binding(queue, exchange, routing_key):
            self._queue_bind(
                exchange, *self.typeof(exchange).prepare_bind(queue, exchange, routing_key, arguments)
            )
        else:
            super().queue_bind(queue, exchange, routing_key, arguments, **kwargs)

    def refresh_bindings(self, queues: Iterable[str]) -> None:
        """Keep the bindings of queues that expire alive."""
        for queue in queues:
            if queue in self._limits:
                for exchange, routing_key, arguments in list(self.state.queue_bindings(queue)):
                    self.queue_bind(queue, exchange, routing_key, arguments)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            self._fanout.setdefault(queue, set()).add((exchange, (routing_key or "").replace("#", "*")))
        group = self.keys.exchange_group(exchange)
        self.session.run(group, BIND, *self._binding(exchange, routing_key, pattern, queue))
        self.session.replicate(group, f"the binding of queue {queue}")

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
        rows = [tuple(member.decode(errors="replace").split(self.keys.separator)) for member in members]
        if any(len(row) != BINDING_PARTS for row in rows):
            logger.error(
                "passed over in the bindings of exchange %r: %s; remove them with SREM %s",
                exchange,
                [row for row in rows if len(row) != BINDING_PARTS],
                self.keys.binding(exchange),
            )
        return [row for row in rows if len(row) == BINDING_PARTS]

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
