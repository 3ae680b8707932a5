"""`app.events`: receiver, dispatcher and state set up from the app's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qcore.events import EventDispatcher
from qevents.receiver import EventReceiver, Handler
from qevents.state import State


class Events:
    """Makes receivers, dispatchers and states for `app`; found as `app.events`."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def Receiver(
        self,
        channel: Any,
        handlers: Mapping[str, Handler] | None = None,
        routing_key: str = "#",
        node_id: str | None = None,
        **options: Any,
    ) -> EventReceiver:
        """An `EventReceiver`; `options` override what the settings `event_*` say."""
        conf = self.app.conf
        defaults: dict[str, Any] = {
            "clock": self.app.clock,
            "queue_prefix": conf.event_queue_prefix,
            "exchange": conf.event_exchange,
            "accept": {conf.event_serializer, "json"},
            "queue_ttl": conf.event_queue_ttl,
            "queue_expires": conf.event_queue_expires,
            "queue_exclusive": conf.event_queue_exclusive,
            "queue_durable": conf.event_queue_durable,
            "wakeup": self._wake_workers,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return EventReceiver(channel, handlers, routing_key, node_id, **{**defaults, **given})

    def Dispatcher(
        self, connection: Any = None, hostname: str | None = None, enabled: bool = True, **options: Any
    ) -> EventDispatcher:
        """An `EventDispatcher`; `options` override what the settings `event_*` say."""
        conf = self.app.conf
        defaults: dict[str, Any] = {
            "clock": self.app.clock,
            "serializer": conf.event_serializer,
            "exchange": conf.event_exchange,
        }
        return EventDispatcher(connection, hostname, enabled, **{**defaults, **options})

    def State(self, **options: Any) -> State:
        """A `State`; `options` are its own."""
        return State(**options)

    @contextmanager
    def default_dispatcher(
        self, hostname: str | None = None, enabled: bool = True, buffer_while_offline: bool = False
    ) -> Iterator[EventDispatcher]:
        """A dispatcher on a producer of the app's pool, for the time of the `with` block."""
        with (
            self.app.producer_or_acquire() as producer,
            self.Dispatcher(
                producer.connection,
                hostname,
                enabled,
                channel=producer.channel,
                buffer_while_offline=buffer_while_offline,
            ) as dispatcher,
        ):
            yield dispatcher

    def _wake_workers(self, connection: Any, channel: Any) -> None:
        self.app.control.broadcast("heartbeat", connection=connection, channel=channel)
