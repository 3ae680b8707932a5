"""Step event loop: the one place where the worker waits.

A kombu `Hub` drives everything: broker sockets of transports that can do so, pool children, timers, signals.
A transport that cannot be polled (`implements.asynchronous` is false) is asked for messages between the
ticks, without blocking, at its polling interval while nothing comes.

Before each wait `Consumer.end_of_tick` sends what was collected.
"""

from __future__ import annotations

import logging
import time
from queue import Empty
from typing import TYPE_CHECKING, Any

from qcore.signals import worker_ready
from qworker import bootsteps

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)

# Messages taken from a transport that cannot be polled, between two ticks.
MESSAGES_PER_TICK = 200
# An in-memory queue costs nothing to look at.
MEMORY_POLL_SECONDS = 0.01


class EventLoop(bootsteps.StartStopStep):
    """Blocks in `start` until the worker stops or the connection is lost."""

    label = "event loop"
    last = True

    def __init__(self, c: Consumer, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)

    def start(self, c: Consumer) -> None:
        """Run."""
        source = HubSource(c) if c.connection.transport.implements.asynchronous else PolledSource(c)
        source.register()
        # The hub calls it before each poll, so that nothing that timers or children set off waits meanwhile.
        c.hub.on_tick.add(c.end_of_tick)
        try:
            c.task_consumer.on_message = c.create_task_handler()
            c.task_consumer.consume()
            c.consuming = True
            self.ready(c)
            while c.blueprint.state == bootsteps.RUN:
                c.controller.lifecycle.check()
                source.take()
                c.controller.tick()
        finally:
            c.hub.on_tick.discard(c.end_of_tick)
            source.unregister()

    def ready(self, c: Consumer) -> None:
        """Tell the world, the first time."""
        if c.on_ready is not None:
            callback, c.on_ready = c.on_ready, None
            callback(c)
            worker_ready.send(sender=c)

    def stop(self, c: Consumer) -> None:
        """The loop ends by itself."""


class HubSource:
    """A transport whose sockets the hub polls."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.heartbeat: Any = None

    def register(self) -> None:
        """Put the sockets into the hub."""
        c = self.consumer
        connection = c.connection
        connection.transport.register_with_event_loop(connection.connection, c.hub)
        rate = c.app.conf.broker_heartbeat_checkrate
        interval = connection.get_heartbeat_interval()
        if interval and connection.supports_heartbeats:
            self.heartbeat = c.timer.call_repeatedly(
                interval / rate, self._check_heartbeat, (connection, rate), priority=1
            )

    def _check_heartbeat(self, connection: Any, rate: float) -> None:
        try:
            connection.heartbeat_check(rate)
        except self.consumer.broker_errors as exc:
            # A timer's errors are only logged by the hub; this one has to reach the loop.
            self.consumer.broker_error = exc

    def take(self) -> None:
        """The hub brings the messages."""

    def unregister(self) -> None:
        """Take the sockets out of the hub."""
        if self.heartbeat is not None:
            self.heartbeat.cancel()
            self.heartbeat = None
        sweep(self.consumer.hub)


class PolledSource:
    """A transport that is asked for messages."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.entry: Any = None
        self.next_look = 0.0
        transport = consumer.connection.transport
        interval = getattr(transport, "polling_interval", None)
        if transport.driver_type == "memory":
            interval = MEMORY_POLL_SECONDS
        self.interval = float(interval if interval is not None else 1.0)

    def register(self) -> None:
        """Nothing: it has no sockets."""

    def take(self) -> None:
        """Take what is there, and see to it that the next tick does not wait longer than it may."""
        c = self.consumer
        if not c.controller.freed_slots and time.monotonic() < self.next_look:
            self._wake_later()
            return
        c.controller.freed_slots = False
        taken = 0
        drain = c.connection.drain_events
        while taken < MESSAGES_PER_TICK:
            try:
                drain(timeout=0)
            except (TimeoutError, Empty):
                break
            taken += 1
        if taken:
            self.next_look = 0.0
            c.controller.wakeup.set()
        else:
            self.next_look = time.monotonic() + self.interval
            self._wake_later()

    def _wake_later(self) -> None:
        if self.entry is None:
            delay = max(self.next_look - time.monotonic(), 0.0)
            self.entry = self.consumer.timer.call_after(delay, self._awake)

    def _awake(self) -> None:
        self.entry = None
        self.consumer.controller.wakeup.set()

    def unregister(self) -> None:
        """Stop asking."""
        if self.entry is not None:
            self.entry.cancel()
            self.entry = None


def sweep(hub: Any) -> None:
    """Take everything of the transport out of the hub.

    kombu's transports leave calls behind that are due soon and descriptors that were closed under them. They would
    raise the old connection's error again and again, each time at the cost of the new connection.
    """
    for registered in (hub.readers, hub.writers):
        for fd, entry in list(registered.items()):
            if entry is not None and _is_transports(entry[0]):
                hub.remove(fd)
    for callback in list(hub.on_tick):
        if _is_transports(callback):
            hub.on_tick.discard(callback)
    for due in hub._pop_ready():
        if not _is_transports(getattr(due, "fun", due)):
            hub.call_soon(due)


def _is_transports(callback: Any) -> bool:
    module = getattr(callback, "__module__", None) or ""
    return module.startswith(("kombu.transport", "qbrokers"))
