"""One remote control request: publish it, and gather the replies that carry its ticket.

The reply queue is consumed before the request is published, so that the quickest reply finds it. Replies are
gathered until the deadline, or until everybody asked has answered. A reply to another request of the same
thread (a callback that asks again) is parked for it; one that nobody waits for any more is dropped.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

import qcore.errors as errors
from qcore.edge import kombu

Reply = dict[str, Any]
"""One key, the node's name, and its answer."""

PUBLISH_ATTEMPTS = 2
# A pooled connection may have died unnoticed: the first attempt then finds out, the second one connects anew.

REPLY_TICK_SECONDS = 1.0
# Without a deadline a wait still comes back this often, so that parked replies and signals are seen.


@frozen
class ControlRequest:
    """What is asked, and of whom; everything on the wire is made from this.

    Attributes:
        command: Name of the remote command.
        arguments: Its keyword arguments, encodable by `task_serializer`.
        destination: Node names; None asks every node.
        pattern, matcher: Ask the nodes whose name matches, by `glob` or `pcre`.
        timeout: Seconds to wait for replies; None waits until `limit` replies arrived.
        limit: Number of replies to wait for; by default one of each node in `destination`.
        callback: Called with each reply as it arrives.
    """

    command: str
    arguments: dict[str, Any] = field(factory=dict)
    destination: tuple[str, ...] | None = None
    pattern: str | None = None
    matcher: str | None = None
    timeout: float | None = 1.0
    limit: int | None = None
    callback: Callable[[Reply], object] | None = None

    def message(self) -> dict[str, Any]:
        """The body, without the part that asks for a reply."""
        return {
            "method": self.command,
            "arguments": self.arguments,
            "destination": list(self.destination) if self.destination else None,
            "pattern": self.pattern,
            "matcher": self.matcher,
        }

    def is_answered(self, replies: list[Reply]) -> bool:
        """Whether waiting longer is of no use."""
        if self.limit is not None:
            return len(replies) >= self.limit
        if self.destination:
            return {node for reply in replies for node in reply} >= set(self.destination)
        return False


def cast(mailbox: Any, connection: Any, request: ControlRequest, channel: Any = None) -> None:
    """Publish a request that wants no reply.

    Raises:
        OperationalError: The broker cannot be reached.
    """
    _with_channel(connection, channel, lambda chan: _publish(mailbox, chan, request, {}))


def call(mailbox: Any, connection: Any, request: ControlRequest, channel: Any = None) -> list[Reply]:
    """Publish a request and gather its replies, in the order of arrival.

    Raises:
        OperationalError: The broker cannot be reached.
    """
    waiting = _Waiting(mailbox, request)

    def start(chan: Any) -> Any:
        consumer = waiting.consume(chan)
        _publish(mailbox, chan, request, waiting.reply_fields())
        return consumer

    mailbox.unclaimed[waiting.ticket].clear()
    consumer = None
    try:
        consumer = _with_channel(connection, channel, start)
        waiting.gather(connection)
    except connection.connection_errors as exc:
        raise _lost(connection, exc) from exc
    finally:
        mailbox.unclaimed.pop(waiting.ticket, None)
        if consumer is not None:
            _stop_consuming(consumer, connection)
    return waiting.replies


def _with_channel(connection: Any, channel: Any, function: Callable[[Any], Any]) -> Any:
    attempts = 1 if channel is not None else PUBLISH_ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            return function(channel if channel is not None else _open_channel(connection))
        except connection.connection_errors as exc:
            if attempt == attempts:
                raise _lost(connection, exc) from exc
            connection.collect()
    return None


def _lost(connection: Any, exc: BaseException) -> Exception:
    return errors.OperationalError(
        f"remote control lost the broker {connection.as_uri()}: {exc!r}; is it running and reachable?"
    )


def _open_channel(connection: Any) -> Any:
    # `default_channel` alone would retry for ever while the broker is away.
    connection.ensure_connection(
        max_retries=1, interval_start=0.2, interval_step=0, reraise_as_library_errors=False
    )
    return connection.default_channel


def _publish(mailbox: Any, channel: Any, request: ControlRequest, reply_fields: dict[str, Any]) -> None:
    producer = kombu().Producer(channel, auto_declare=False)
    producer.publish(
        request.message() | reply_fields,
        exchange=mailbox.exchange.name,
        routing_key="",
        declare=[mailbox.exchange],
        headers={
            "clock": mailbox.clock.forward(),
            "expires": time.time() + request.timeout if request.timeout else 0,
        },
        serializer=mailbox.serializer,
        delivery_mode=2,
    )


def _stop_consuming(consumer: Any, connection: Any) -> None:
    channel, queue_name = consumer.channel, consumer.queues[0].name
    try:
        consumer.cancel()
        channel.after_reply_message_received(queue_name)
    except connection.connection_errors + connection.channel_errors:
        pass  # the queue goes with its connection, or expires


@define
class _Waiting:
    """The replies of one request as they come in."""

    mailbox: Any
    request: ControlRequest
    ticket: str = field(factory=lambda: str(uuid.uuid4()))
    replies: list[Reply] = field(factory=list)

    def reply_fields(self) -> dict[str, Any]:
        reply_to = {"exchange": self.mailbox.reply_exchange.name, "routing_key": self.mailbox.oid}
        return {"ticket": self.ticket, "reply_to": reply_to}

    def consume(self, channel: Any) -> Any:
        consumer = kombu().Consumer(
            channel,
            # A new Queue each time: the mailbox's cached one belongs to the first thread that asked.
            [self.mailbox.get_reply_queue()],
            accept=self.mailbox.accept,
            no_ack=True,
            callbacks=[self.on_reply],
        )
        consumer.consume()
        return consumer

    def on_reply(self, body: Reply, message: Any) -> None:
        headers = message.headers
        self.mailbox.clock.adjust(headers.get("clock") or 0)
        expires = headers.get("expires")
        if expires and time.time() > expires:
            return
        ticket = headers.get("ticket", self.ticket)
        if ticket == self.ticket:
            self.take(body)
        elif ticket in self.mailbox.unclaimed:
            self.mailbox.unclaimed[ticket].append(body)

    def take(self, reply: Reply) -> None:
        self.replies.append(reply)
        if self.request.callback is not None:
            self.request.callback(reply)

    def take_parked(self) -> None:
        parked = self.mailbox.unclaimed.get(self.ticket)
        while parked:
            self.take(parked.popleft())

    def gather(self, connection: Any) -> None:
        timeout = self.request.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.take_parked()
            if self.request.is_answered(self.replies):
                return
            left = REPLY_TICK_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return
            try:
                connection.drain_events(timeout=left)
            except TimeoutError:
                continue
