"""Publishing: the commands that put a message in its queue, now or when it is due."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from kombu import exceptions
from kombu.entity import TRANSIENT_DELIVERY_MODE

from qbrokers import jsoncodec
from qbrokers.batching import ETA_PROPERTY, Publication
from qbrokers.redis import messages
from qbrokers.redis.keys import Keys
from qbrokers.redis.session import Session
from qbrokers.redis.wire import Command

# kombu 5.7 has a name of its own for it.
BatchPublishError: type[Exception] = getattr(exceptions, "BatchPublishError", exceptions.OperationalError)


@frozen
class Limits:
    """What the arguments of a queue demand. They bind the messages sent by the process that declared the
    queue.

    Attributes:
        expires_ms: `x-expires`: an unused queue is deleted after so long; 0 never.
        message_ttl_ms: `x-message-ttl`: a message older than this is dropped instead of delivered; 0 never.
        max_length: `x-max-length`: the oldest messages beyond it are dropped (per priority step); 0 without
            limit.
    """

    expires_ms: int = 0
    message_ttl_ms: int = 0
    max_length: int = 0

    @classmethod
    def of(cls, arguments: Mapping[str, Any] | None) -> Limits | None:
        """Limits in a queue's arguments, or None when there are none."""
        names = ("x-expires", "x-message-ttl", "x-max-length")
        values = [int((arguments or {}).get(name) or 0) for name in names]
        return cls(*values) if any(values) else None


REPLY_LIMITS = Limits(expires_ms=3_600_000)
"""Of a queue of remote control replies whose asker may be gone: nobody else will ever read it."""


def put(keys: Keys, queue: str, message: dict[str, Any], limits: Limits | None) -> list[Command]:
    """The commands that put one message in a queue; one LPUSH unless the queue or the message asks for
    more.
    """
    properties = message["properties"]
    priority = messages.wire_priority(properties)
    if limits is not None and limits.message_ttl_ms:
        properties[messages.DEADLINE_PROPERTY] = time.time() + limits.message_ttl_ms / 1000
    due = properties.get(ETA_PROPERTY)
    if due is not None and due > time.time():
        member = b"%d:%s" % (keys.step(priority), jsoncodec.encode(message))
        return [(b"ZADD", keys.delayed(queue), int(due * 1000), member)]
    name = keys.list_for(queue, priority)
    commands: list[Command] = [(b"LPUSH", name, jsoncodec.encode(message))]
    if limits is not None:
        commands += limiting(keys, queue, name, limits)
    return commands


def limiting(keys: Keys, queue: str, name: str, limits: Limits) -> list[Command]:
    """What follows a push to a queue with limits."""
    commands: list[Command] = []
    if limits.max_length:
        commands.append((b"LTRIM", name, 0, limits.max_length - 1))
    if limits.expires_ms:
        commands += expiring(keys, queue, limits.expires_ms)
    return commands


def expiring(keys: Keys, queue: str, expires_ms: int) -> list[Command]:
    return [(b"PEXPIRE", name, expires_ms) for name in keys.lists(queue)]


class Router(Protocol):
    """What publishing needs of a channel."""

    session: Session
    keys: Keys
    deadletter_queue: str | None

    def complete(self, message: dict[str, Any], exchange: str, routing_key: str) -> None:
        """Encode the body and write tag and address into an envelope."""

    def typeof(self, exchange: str) -> Any:
        """kombu's object for the type of an exchange."""

    def get_table(self, exchange: str) -> list[tuple[str, ...]]:
        """Bindings of an exchange."""

    def limits(self, queue: str) -> Limits | None:
        """Limits of a queue."""


def publish_many(channel: Router, publications: Sequence[Publication]) -> None:
    """Route all the messages, then send them together; see `Channel.publish_many`."""
    collector = Collector(channel)
    for publication in publications:
        collector.add(publication)
    collector.send()


class Collector:
    """The commands of one batch. Binding tables are read once per batch."""

    def __init__(self, channel: Router) -> None:
        self._channel = channel
        self._tables: dict[str, list[tuple[str, ...]]] = {}
        self._batches: dict[str, list[list[Any]]] = defaultdict(list)
        self._open: dict[tuple[bytes, str], list[Any]] = {}
        self._names: dict[tuple[str, Any], str] = {}
        self._lasting: set[str] = set()

    def add(self, publication: Publication) -> None:
        channel, exchange, routing_key = self._channel, publication.exchange, publication.routing_key
        message = publication.message
        channel.complete(message, exchange, routing_key)
        if exchange and channel.typeof(exchange).type == "fanout":
            name = channel.keys.channel(exchange, routing_key)
            self._batches[""].append([b"PUBLISH", name, jsoncodec.encode(message)])
            return
        for queue in self._queues(exchange, routing_key):
            self._put(queue, message)

    def _queues(self, exchange: str, routing_key: str) -> list[str]:
        if not exchange:
            return [routing_key]
        channel = self._channel
        table = self._tables.get(exchange)
        if table is None:
            table = self._tables[exchange] = channel.get_table(exchange)
        found = channel.typeof(exchange).lookup(table, exchange, routing_key, channel.deadletter_queue)
        return sorted(found) or [channel.deadletter_queue] if channel.deadletter_queue else sorted(found)

    def _put(self, queue: str, message: dict[str, Any]) -> None:
        """Pushes to one list share a command; the order within a list is that of publishing."""
        channel = self._channel
        group = channel.keys.group(queue)
        if message["properties"].get("delivery_mode") != TRANSIENT_DELIVERY_MODE:
            self._lasting.add(group)
        limits = channel.limits(queue)
        if limits is not None:
            self._batches[group] += [list(command) for command in put(channel.keys, queue, message, limits)]
            return
        properties = message["properties"]
        if ETA_PROPERTY in properties:
            name, *rest = put(channel.keys, queue, message, None)[0][1:]
            self._command(group, b"ZADD" if len(rest) == 2 else b"LPUSH", name).extend(rest)
            return
        priority = properties["priority"]
        name = self._names.get((queue, priority))
        if name is None:
            name = self._names[queue, priority] = channel.keys.list_for(
                queue, messages.wire_priority(properties)
            )
        self._command(group, b"LPUSH", name).append(jsoncodec.encode(message))

    def _command(self, group: str, word: bytes, name: str) -> list[Any]:
        command = self._open.get((word, name))
        if command is None:
            command = self._open[word, name] = [word, name]
            self._batches[group].append(command)
        return command

    def send(self) -> None:
        for group, batch in self._batches.items():
            commands: list[Command] = [tuple(command) for command in batch]
            if len(commands) > 1:
                commands = [(b"MULTI",), *commands, (b"EXEC",)]
            session = self._channel.session
            (session.write if group in self._lasting else session.pipeline)(group, commands)

    def clear(self) -> None:
        self._lasting.clear()
        self._batches.clear()
        self._open.clear()


class PublishBatch:
    """Messages of one `kombu.Producer.batch` context, sent when there are `max_size`, and at its end."""

    def __init__(self, channel: Router, max_size: int) -> None:
        self.channel = channel
        self._collector = Collector(channel)
        self._max_size = max_size
        self._size = 0
        self._failed: BaseException | None = None

    def publish(self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Route one prepared message and keep it for the next `flush`.

        Raises:
            BatchPublishError: The batch has failed before.
        """
        self._check()
        self._collector.add(Publication(message, exchange, routing_key))
        self._size += 1
        if self._size >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Send what is kept, once.

        Raises:
            BatchPublishError: Whether the messages arrived is not known.
        """
        self._check()
        try:
            self._collector.send()
        except Exception as exc:
            self._failed = exc
            raise BatchPublishError("Redis publish batch failed; delivery is uncertain") from exc
        finally:
            self.discard()

    def discard(self) -> None:
        self._collector.clear()
        self._size = 0

    def close(self) -> None:
        self.discard()

    def _check(self) -> None:
        if self._failed is not None:
            raise BatchPublishError("this batch failed before; begin a new one") from self._failed
