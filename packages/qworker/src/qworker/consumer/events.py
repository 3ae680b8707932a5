"""Step Events: the dispatcher that tells monitors what happens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qcore.events import EventDispatcher
from qworker import bootsteps
from qworker.consumer.reconnect import close_quietly

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)

# A message of this many events is some 50 kB, which every broker takes.
EVENTS_PER_MESSAGE = 200


class Events(bootsteps.StartStopStep):
    """Makes `consumer.event_dispatcher`.

    It collects task events and sends them at the end of each tick, all in one message. Without `-E` it sends
    worker events only, until the command `enable_events`.
    """

    requires = ("qworker.consumer.connection:Connection",)

    def __init__(
        self,
        c: Consumer,
        task_events: bool = False,
        without_heartbeat: bool = False,
        without_gossip: bool = False,
        **kwargs: Any,
    ) -> None:
        self.task_events = task_events
        self.groups: tuple[str, ...] = () if task_events else ("worker",)
        self.enabled = bool(task_events or not without_heartbeat or not without_gossip)
        self.connection: Any = None
        c.event_dispatcher = None
        super().__init__(c, **kwargs)

    def start(self, c: Consumer) -> None:
        """Make a dispatcher on a connection of its own; what an earlier one could not send goes first."""
        previous = c.event_dispatcher
        conf = c.app.conf
        if not c.gate.can.broadcast and not c.generation:
            # Heartbeats are sent by default; only who asked for events needs a warning.
            level = logging.WARNING if self.task_events else logging.INFO
            logger.log(level, "Events are off: the broker %s cannot broadcast.", c.gate.broker)
        # Its own connection: events must neither wait behind deliveries nor fail with them.
        self.connection = c.app.connection_for_write()
        dispatcher = EventDispatcher(
            self.connection,
            hostname=c.hostname,
            enabled=c.gate.can.broadcast,
            groups=self.groups,
            buffer_group=("task",),
            buffer_limit=EVENTS_PER_MESSAGE,
            serializer=conf.event_serializer,
            exchange=conf.event_exchange,
            clock=c.app.clock,
        )
        if previous is not None:
            dispatcher.extend_buffer(previous)
        c.event_dispatcher = dispatcher
        dispatcher.on_enabled.add(lambda: switch_task_events(c))
        dispatcher.on_disabled.add(lambda: switch_task_events(c))
        switch_task_events(c)
        c.tick_hooks.append(self._flush)
        self.consumer = c

    def stop(self, c: Consumer) -> None:
        """Let the dispatcher go; what it holds is sent after a reconnection."""
        if self._flush in c.tick_hooks:
            c.tick_hooks.remove(self._flush)
        c.send_task_event = None
        dispatcher = c.event_dispatcher
        if dispatcher is not None:
            dispatcher.flush()
            dispatcher.close()
        close_quietly(self.connection)
        self.connection = None

    def shutdown(self, c: Consumer) -> None:
        """Let the dispatcher go for good."""
        self.stop(c)

    def _flush(self) -> None:
        dispatcher = self.consumer.event_dispatcher
        if dispatcher is not None and dispatcher.enabled and dispatcher.buffered:
            dispatcher.flush()


def switch_task_events(c: Consumer) -> None:
    """Set `send_task_event` as the dispatcher is switched."""
    dispatcher = c.event_dispatcher
    on = (
        dispatcher is not None
        and dispatcher.enabled
        and (not dispatcher.groups or "task" in dispatcher.groups)
    )
    c.send_task_event = dispatcher.send if on else None
