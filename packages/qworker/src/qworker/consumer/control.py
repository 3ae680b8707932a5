"""Step Control: answers remote control commands."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qworker import bootsteps
from qworker.consumer.node import make_node

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)


class Control(bootsteps.StartStopStep):
    """Listens on the node's mailbox; `consumer.pidbox_node`."""

    requires = ("qworker.consumer.events:Events",)

    def __init__(self, c: Consumer, **kwargs: Any) -> None:
        c.pidbox_node = None
        self.node: Any = None
        self.mailbox_consumer: Any = None
        self._flush: Any = None
        self.enabled = bool(c.app.conf.worker_enable_remote_control)
        super().__init__(c, **kwargs)

    def start(self, c: Consumer) -> None:
        """Listen, when the broker can broadcast."""
        if not c.gate.can.broadcast:
            logger.info("Remote control is off: the broker %s cannot broadcast.", c.gate.broker)
            return
        channel = c.connection.channel()
        self.node = c.pidbox_node = make_node(c, channel)
        try:
            self.mailbox_consumer = self.node.listen()
        except c.broker_errors as exc:
            if "RESOURCE_LOCKED" in str(exc):  # of AMQP
                logger.error(
                    "A worker named %s is already connected. Give every worker a name of its own with -n, or stop "
                    "the other one; this one goes on as soon as the name is free.",
                    c.hostname,
                )
            raise
        self._flush = getattr(channel, "flush", None)
        if self._flush is not None:
            c.tick_hooks.append(self._flush)

    def stop(self, c: Consumer) -> None:
        """Stop listening."""
        c.pidbox_node = None
        if self._flush is not None and self._flush in c.tick_hooks:
            c.tick_hooks.remove(self._flush)
        self._flush = None
        consumer, self.mailbox_consumer = self.mailbox_consumer, None
        node, self.node = self.node, None
        if consumer is None:
            return
        try:
            consumer.cancel()
            node.channel.close()
        except c.broker_errors as exc:
            logger.debug("closing the mailbox failed: %r", exc)

    shutdown = stop
