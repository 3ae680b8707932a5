"""The dispatcher: sends events, collects those of busy groups, and keeps them while the broker is away.

Life of an event: `send` builds the dict and either publishes it at once (one object per message, routing
key `worker.online`) or, when its group is one of `buffer_group`, appends it to the group's buffer. `flush`
sends each buffer as one array on the key `task.multi`. What cannot be published waits in the outbox, bounded
by `outbox_limit` events, and goes out first at the next flush.

Two locks keep senders quick: `_buffer_lock` guards the buffers and is never held over input/output,
`_publish_lock` orders the messages on the channel.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from qcore.connections import describe
from qcore.edge import kombu
from qcore.events.message import (
    DEFAULT_EXCHANGE,
    event_exchange,
    group_of,
    make_event,
    routing_key_of,
)
from qcore.refusal import can_broadcast
from qcore.times import utc_offset_hours

logger = logging.getLogger(__name__)

Event = dict[str, Any]
Payload = Event | list[Event]

DEFAULT_OUTBOX_LIMIT = 10_000
# The offset changes twice a year; asking the C library for each event would cost more than the event itself.
OFFSET_CACHE_SECONDS = 1.0
# A try to connect may take seconds, and senders wait for it: one try in a while is enough.
RECONNECT_SECONDS = 2.0


class Clock(Protocol):
    """A Lamport clock (`kombu.clocks.LamportClock`)."""

    def forward(self) -> int: ...


class EventDispatcher:
    """Sends events for the node `hostname`.

    Args:
        connection: Kombu connection; not needed when `channel` is given.
        hostname: Node name; `gen<pid>@<host>` by default, as clients use it.
        enabled: A disabled dispatcher drops every event, at the price of one attribute read.
        channel: Publish on this channel instead of the connection's default one.
        groups: Send only events of these groups (`worker`, `task`, …); everything when empty.
        buffer_group: Groups whose events are collected and sent as one array per flush.
        buffer_limit: Number of collected events of a group that makes `send` flush by itself.
        on_send_buffered: Called after an event was collected, to schedule a flush.
        buffer_while_offline: Keep what cannot be published; when false, `send` raises instead.
        outbox_limit: Number of events kept while the broker is away; the oldest are dropped first.
        delivery_mode: 1 transient, 2 persistent.
        serializer: Setting `event_serializer`.
        exchange: Setting `event_exchange`.
        clock: Logical clock of the app.
        driver_types_disabled: Transports that shall carry no events, beside those that cannot broadcast (the log says
            when that is so); the dispatcher is then disabled for good.
    """

    def __init__(
        self,
        connection: Any = None,
        hostname: str | None = None,
        enabled: bool = True,
        *,
        channel: Any = None,
        groups: Iterable[str] | None = None,
        buffer_group: Iterable[str] = (),
        buffer_limit: int = 24,
        on_send_buffered: Callable[[], object] | None = None,
        buffer_while_offline: bool = True,
        outbox_limit: int = DEFAULT_OUTBOX_LIMIT,
        delivery_mode: int = 1,
        serializer: str = "json",
        exchange: str = DEFAULT_EXCHANGE,
        clock: Clock | None = None,
        driver_types_disabled: Collection[str] = (),
    ) -> None:
        if connection is None and channel is None:
            raise ValueError("an event dispatcher needs a connection or a channel to publish on")
        self.connection = connection if connection is not None else channel.connection.client
        self.channel = channel
        self.hostname = hostname or f"gen{os.getpid()}@{socket.gethostname()}"
        self.groups = frozenset(groups or ())
        self.buffer_group = frozenset(buffer_group)
        self.buffer_limit = buffer_limit
        self.on_send_buffered = on_send_buffered
        self.buffer_while_offline = buffer_while_offline
        self.outbox_limit = outbox_limit
        self.delivery_mode = delivery_mode
        self.serializer = serializer
        self.clock: Clock = clock if clock is not None else _lamport_clock()
        self.exchange = event_exchange(self.connection, exchange)
        self.headers = {"hostname": self.hostname}
        self.on_enabled: set[Callable[[], object]] = set()
        self.on_disabled: set[Callable[[], object]] = set()
        self.producer: Any = None
        self.enabled = False
        self._buffers: dict[str, list[Event]] = {}
        self._outbox: deque[tuple[Payload, str]] = deque()
        self._outbox_events = 0
        self._buffer_lock = threading.Lock()
        self._publish_lock = threading.RLock()
        self._was_connected = False
        self._connect_again_at = 0.0
        self._offset = 0.0
        self._offset_valid_until = 0.0
        if not enabled or self.connection.transport.driver_type in driver_types_disabled:
            return
        if can_broadcast(self.connection):
            self.enable()
        else:
            logger.warning("No events are sent: the broker %s cannot broadcast.", describe(self.connection))

    def __enter__(self) -> EventDispatcher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- switching

    def enable(self) -> None:
        """Start sending events, then run the `on_enabled` callbacks."""
        with self._publish_lock:
            self.producer = kombu().Producer(
                self.channel or self.connection,
                exchange=self.exchange,
                serializer=self.serializer,
                auto_declare=False,
            )
            self.enabled = True
        for callback in list(self.on_enabled):
            callback()

    def disable(self) -> None:
        """Stop sending events, then run the `on_disabled` callbacks; does nothing when disabled already."""
        if not self.enabled:
            return
        self.close()
        for callback in list(self.on_disabled):
            callback()

    def close(self) -> None:
        """Let go of the channel; what is buffered stays, for a later `enable` or `extend_buffer`."""
        self.enabled = False
        with self._publish_lock:
            self.producer = None

    # -- sending

    def send(
        self,
        type: str,
        blind: bool = False,
        utcoffset: Callable[[], float] | None = None,
        retry: bool = False,
        retry_policy: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """Send an event of `type` (`group-what`) with `fields`, which the serializer must be able to encode.

        With `blind` the logical clock is neither advanced nor sent. Nothing happens while the dispatcher
        is disabled, or when the event's group is not one of `groups`.
        """
        if not self.enabled:
            return
        group = group_of(type)
        if self.groups and group not in self.groups:
            return
        if group in self.buffer_group:
            self._collect(group, self._event(type, fields, blind, utcoffset))
            return
        event = self._event(type, fields, blind, utcoffset)
        with self._publish_lock:
            if self.producer is None:
                return
            if self._outbox and not self._flush_outbox():
                self._keep(event, routing_key_of(type))
                return
            self._publish(event, routing_key_of(type), self.producer, retry=retry, retry_policy=retry_policy)

    def publish(
        self,
        type: str,
        fields: dict[str, Any],
        producer: Any,
        blind: bool = False,
        utcoffset: Callable[[], float] | None = None,
        **options: Any,
    ) -> None:
        """Send one event through `producer`, enabled or not; `options` (retry, …) go to its `publish`."""
        event = self._event(type, fields, blind, utcoffset)
        with self._publish_lock:
            self._publish(event, routing_key_of(type), producer, **options)

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what waits in the outbox (`errors`) and each collected group as one message (`groups`)."""
        if self.producer is None:
            return
        with self._publish_lock:
            if errors and not self._flush_outbox():
                return
            if groups:
                self._flush_buffers()

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Take over what `other` could not send, collected events included; `other` is left empty."""
        with other._publish_lock:
            waiting = list(other._outbox)
            other._outbox.clear()
            other._outbox_events = 0
        with other._buffer_lock:
            collected = [(events, f"{group}.multi") for group, events in other._buffers.items() if events]
            other._buffers.clear()
        with self._publish_lock:
            for payload, routing_key in [*waiting, *collected]:
                self._keep(payload, routing_key)

    @property
    def buffered(self) -> int:
        """Number of events that wait for a flush."""
        with self._buffer_lock:
            return self._outbox_events + sum(map(len, self._buffers.values()))

    # -- inside

    def _event(
        self, type: str, fields: dict[str, Any], blind: bool, utcoffset: Callable[[], float] | None
    ) -> Event:
        event = make_event(type, fields)
        event["hostname"] = self.hostname
        event["pid"] = os.getpid()
        event["clock"] = None if blind else self.clock.forward()
        event["utcoffset"] = self._cached_offset() if utcoffset is None else utcoffset()
        return event

    def _cached_offset(self) -> float:
        now = time.monotonic()
        if now >= self._offset_valid_until:
            self._offset = utc_offset_hours()
            self._offset_valid_until = now + OFFSET_CACHE_SECONDS
        return self._offset

    def _collect(self, group: str, event: Event) -> None:
        with self._buffer_lock:
            events = self._buffers.setdefault(group, [])
            events.append(event)
            full = len(events) >= self.buffer_limit
        if full:
            self.flush()
        elif self.on_send_buffered is not None:
            self.on_send_buffered()

    def _flush_outbox(self) -> bool:
        """Send the outbox in order; false when the broker is still away, so that nothing overtakes it."""
        for _ in range(len(self._outbox)):
            payload, routing_key = self._outbox.popleft()
            self._outbox_events -= _count(payload)
            if not self._publish(payload, routing_key, self.producer, first=True):
                return False
        return True

    def _flush_buffers(self) -> None:
        with self._buffer_lock:
            buffers, self._buffers = self._buffers, {}
        for group, events in buffers.items():
            if events:
                self._publish(events, f"{group}.multi", self.producer)

    def _publish(
        self, payload: Payload, routing_key: str, producer: Any, first: bool = False, **options: Any
    ) -> bool:
        try:
            if producer is self.producer:
                self._connect()
            producer.publish(
                payload,
                routing_key=routing_key,
                exchange=self.exchange.name,
                declare=[self.exchange],
                serializer=self.serializer,
                headers=self.headers,
                delivery_mode=self.delivery_mode,
                **options,
            )
        except Exception as exc:  # noqa: BLE001 - the broker's client library raises what it likes
            return self._publish_failed(exc, payload, routing_key, producer, first, options)
        return True

    def _connect(self) -> None:
        """Connect again when the connection was lost; tries for a moment only, unlike kombu by default."""
        if self.channel is not None or self.connection.connected:
            return
        now = time.monotonic()
        if now < self._connect_again_at:
            raise ConnectionError("the broker was away a moment ago")
        self._connect_again_at = now + RECONNECT_SECONDS
        if self._was_connected:
            self.connection.collect()  # or the dead socket would stay open
        self.connection.ensure_connection(
            max_retries=1, interval_start=0.1, interval_step=0, reraise_as_library_errors=False
        )
        self._connect_again_at = 0.0
        self._was_connected = True
        self.producer.revive(self.connection.default_channel)

    def _publish_failed(
        self,
        exc: Exception,
        payload: Payload,
        routing_key: str,
        producer: Any,
        first: bool,
        options: dict[str, Any],
    ) -> bool:
        if isinstance(exc, kombu("kombu.exceptions").EncodeError):
            self._drop_unencodable(exc, payload, routing_key, producer, options)
            return True
        if not self.buffer_while_offline:
            raise exc
        logger.debug("Event %s waits for the broker: %r", routing_key, exc)
        self._keep(payload, routing_key, first=first)
        return False

    def _drop_unencodable(
        self, exc: Exception, payload: Payload, routing_key: str, producer: Any, options: dict[str, Any]
    ) -> None:
        """Log and drop an event no serializer takes; its neighbours in the same array are sent."""
        if isinstance(payload, list) and len(payload) > 1:
            for event in payload:
                self._publish([event], routing_key, producer, **options)
            return
        event = payload[0] if isinstance(payload, list) else payload
        logger.error(
            "Event %s dropped, the %s serializer refuses it: %s", event["type"], self.serializer, exc
        )

    def _keep(self, payload: Payload, routing_key: str, first: bool = False) -> None:
        item = (payload, routing_key)
        if first:
            self._outbox.appendleft(item)
        else:
            self._outbox.append(item)
        self._outbox_events += _count(payload)
        dropped = 0
        while self._outbox_events > self.outbox_limit and len(self._outbox) > 1:
            oldest = _count(self._outbox.popleft()[0])
            self._outbox_events -= oldest
            dropped += oldest
        if dropped:
            logger.warning(
                "%d events dropped: the broker is away and the outbox holds %d", dropped, self.outbox_limit
            )


def _count(payload: Payload) -> int:
    return len(payload) if isinstance(payload, list) else 1


def _lamport_clock() -> Clock:
    clock: Clock = kombu("kombu.clocks").LamportClock()
    return clock
