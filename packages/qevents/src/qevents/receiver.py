"""The receiver: takes events off the broker and hands each to its handler; usable without an app.

Its queue belongs to it alone and vanishes with it; messages in it expire after `queue_ttl` seconds, so that a
monitor that hangs never fills the broker. When the connection is lost, the receiver connects again; events
sent meanwhile are gone.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from qcore.edge import kombu
from qcore.errors import ImproperlyConfigured
from qcore.events import event_exchange
from qcore.refusal import need_broadcast
from qcore.times import adjust_timestamp

logger = logging.getLogger(__name__)

Event = dict[str, Any]
Handler = Callable[[Event], object]

HEARTBEAT_CHECK_SECONDS = 1.0
SUBSCRIBE_SECONDS = 0.1


class Clock(Protocol):
    """A Lamport clock (`kombu.clocks.LamportClock`)."""

    value: int

    def forward(self) -> int: ...

    def adjust(self, other: int) -> int: ...


class EventReceiver:
    """Captures events.

    Args:
        channel: Kombu connection or channel; the receiver consumes on a connection of its own, made like it.
        handlers: Event type -> callable of the event; `*` gets every event that has no handler of its own.
        routing_key: Which events: `#` is all, `worker.#` those of workers.
        node_id: Distinguishes the queue; random by default.
        clock: Logical clock, which every event advances.
        queue_prefix: Setting `event_queue_prefix`; the queue is called `<prefix>.<node_id>`.
        exchange: Setting `event_exchange`.
        accept: Content types that are decoded.
        queue_ttl: Seconds after which an event that was not fetched is dropped.
        queue_expires: Seconds after which an unused queue is deleted.
        queue_exclusive, queue_durable: The queue's flags; not both.
        wakeup: Called as `wakeup(connection, channel)` to make workers send a heartbeat.

    Raises:
        ImproperlyConfigured: The queue would be both exclusive and durable.
        UnsupportedByBroker: The broker cannot broadcast, so nobody sends events.
    """

    def __init__(
        self,
        channel: Any,
        handlers: Mapping[str, Handler] | None = None,
        routing_key: str = "#",
        node_id: str | None = None,
        *,
        clock: Clock | None = None,
        queue_prefix: str = "celeryev",
        exchange: str = "celeryev",
        accept: Collection[str] = ("json",),
        queue_ttl: float | None = 5.0,
        queue_expires: float | None = 60.0,
        queue_exclusive: bool = True,
        queue_durable: bool = False,
        wakeup: Callable[[Any, Any], object] | None = None,
    ) -> None:
        if queue_exclusive and queue_durable:
            raise ImproperlyConfigured(
                "event_queue_exclusive and event_queue_durable cannot both be on, as a broker deletes an "
                "exclusive queue with its connection; switch event_queue_exclusive off for a durable one"
            )
        is_connection = isinstance(channel, kombu("kombu").Connection)
        self.channel = None if is_connection else channel
        self.connection: Any = channel if is_connection else channel.connection.client
        need_broadcast(self.connection, "reading events")
        self.handlers: dict[str, Handler] = dict(handlers or {})
        self.routing_key = routing_key
        self.node_id = node_id or str(uuid.uuid4())
        self.clock: Clock = clock if clock is not None else kombu("kombu.clocks").LamportClock()
        self.accept = set(accept)
        self.exchange = event_exchange(self.connection, exchange)
        self.queue = kombu().Queue(
            f"{queue_prefix}.{self.node_id}",
            exchange=self.exchange,
            routing_key=routing_key,
            auto_delete=not queue_durable,
            durable=queue_durable,
            exclusive=queue_exclusive,
            message_ttl=queue_ttl,
            expires=queue_expires,
        )
        self.should_stop = False
        """Set it, from any thread, and `capture` returns within a second."""
        self._wakeup = wakeup

    # -- capturing

    def capture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> None:
        """Handle events until `limit` messages came in, or `should_stop` is set.

        Args:
            limit: Number of messages (a message may carry many events of one worker).
            timeout: Seconds without any event after which to give up.
            wakeup: Ask the workers for a heartbeat first, so that they are known at once.

        Raises:
            TimeoutError: Nothing came for `timeout` seconds.
        """
        for _ in self.itercapture(limit, timeout, wakeup):
            pass

    def itercapture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True
    ) -> Iterator[None]:
        """`capture` as a generator, which yields after each message."""
        connection = self.connection.clone()
        left = limit or None
        try:
            while not self.should_stop:
                try:
                    for _ in self._capture_while_connected(connection, timeout, wakeup):
                        yield
                        if left is not None:
                            left -= 1
                            if left == 0:
                                return
                except _ConnectionLostError as exc:
                    logger.warning(
                        "Lost the broker %s (%r): connecting again", connection.as_uri(), exc.__cause__
                    )
                    connection.collect()
        finally:
            connection.close()

    def _capture_while_connected(
        self, connection: Any, timeout: float | None, wakeup: bool
    ) -> Iterator[None]:
        messages: list[tuple[Any, Any]] = []
        with _lost_means_lost(connection):
            consumer = self._consume(connection, lambda body, message: messages.append((body, message)))
            if wakeup:
                self._listen_first(connection)
                self.wakeup_workers(connection, consumer.channel)
        try:
            heard = time.monotonic()
            while not self.should_stop:
                self._drain(connection, timeout, heard)
                while messages:
                    self.receive(*messages.pop(0))
                    heard = time.monotonic()
                    yield
        finally:
            with suppress(*connection.connection_errors, *connection.channel_errors):
                consumer.cancel()

    def _consume(self, connection: Any, callback: Callable[[Any, Any], object]) -> Any:
        connection.ensure_connection(_log_retry, reraise_as_library_errors=False)
        consumer = kombu().Consumer(
            connection.default_channel,
            [self.queue],
            callbacks=[callback],
            no_ack=True,
            accept=self.accept,
            on_decode_error=_log_undecodable,
        )
        consumer.consume()
        return consumer

    def _listen_first(self, connection: Any) -> None:
        """Let a transport subscribe before the workers are woken: Redis does so when it first waits."""
        if self.exchange.type == "fanout":
            with suppress(TimeoutError):
                connection.drain_events(timeout=SUBSCRIBE_SECONDS)

    def _drain(self, connection: Any, timeout: float | None, heard: float) -> None:
        """Take what the broker has, after waiting a while; raise when nothing came for `timeout` seconds."""
        with _lost_means_lost(connection):
            try:
                connection.drain_events(timeout=_slice(timeout, heard))
                return
            except TimeoutError:
                connection.heartbeat_check()
        if timeout is not None and time.monotonic() - heard >= timeout:
            raise TimeoutError(f"no event for {timeout} seconds")

    def wakeup_workers(self, connection: Any = None, channel: Any = None) -> None:
        """Ask every worker for a heartbeat."""
        if self._wakeup is not None:
            self._wakeup(connection or self.connection, channel)

    # -- one message

    def receive(self, body: Any, message: Any = None) -> None:
        """Handle the event, or array of events, of a message; what is not an event is logged and dropped."""
        for event in body if isinstance(body, list) else [body]:
            if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                logger.warning("Dropped a message on the event exchange that is no event: %.200r", event)
                continue
            self.process(*self.event_from_message(event))

    def process(self, type: str, event: Event) -> None:
        """Call the handler for `type`, or the one for `*`."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler is not None:
            handler(event)

    def event_from_message(self, event: Event, localize: bool = True) -> tuple[str, Event]:
        """Complete an event as it came in: clock adjusted, timestamp in our zone, `local_received` added.

        Returns:
            Its type, and the event itself, changed in place.
        """
        type_: str = event["type"]
        clock = event.get("clock")
        if type_ == "task-sent":
            # Clients do not take part in the logical time of the workers: theirs says nothing.
            event["clock"] = (self.clock.value or 1) - 1
        elif clock is None:
            event["clock"] = self.clock.forward()
        else:
            self.clock.adjust(clock)
        offset, timestamp = event.get("utcoffset"), event.get("timestamp")
        if localize and offset is not None and timestamp is not None:
            event["timestamp"] = adjust_timestamp(timestamp, offset)
        event["local_received"] = time.time()
        return type_, event


class _ConnectionLostError(Exception):
    """The broker went away; what a handler raises is never taken for it."""


@contextmanager
def _lost_means_lost(connection: Any) -> Iterator[None]:
    try:
        yield
    except connection.connection_errors as exc:
        raise _ConnectionLostError from exc


def _slice(timeout: float | None, heard: float) -> float:
    """Seconds to wait at a stretch, so that heartbeats and `should_stop` are looked after."""
    if timeout is None:
        return HEARTBEAT_CHECK_SECONDS
    return max(0.001, min(HEARTBEAT_CHECK_SECONDS, timeout - (time.monotonic() - heard)))


def _log_retry(exc: BaseException, interval: float) -> None:
    logger.warning("Cannot reach the broker (%s): trying again in %s seconds", exc, interval)


def _log_undecodable(message: Any, exc: BaseException) -> None:
    logger.warning(
        "Dropped an event message of type %s that cannot be decoded: %s", message.content_type, exc
    )
