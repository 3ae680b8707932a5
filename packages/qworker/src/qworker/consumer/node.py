"""The worker's end of remote control: a mailbox of kombu's that replies on its own channel."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qcore.edge import kombu
from qworker.panel import ControlState, Panel, panel

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)


class MailboxNode:
    """Takes the requests for one node, runs their commands and sends what they return.

    kombu has such a node, which replies with a pooled producer; that would be a connection more, and could
    block the worker's loop.

    Args:
        mailbox: `kombu.pidbox.Mailbox`.
        channel: Channel for requests and replies.
        state: First argument of the commands.
        commands: The panel.
    """

    def __init__(self, mailbox: Any, channel: Any, state: ControlState, commands: Panel) -> None:
        self.mailbox = mailbox
        self.channel = channel
        self.state = state
        self.commands = commands
        self.hostname = state.hostname

    def listen(self) -> Any:
        """A kombu Consumer of the node's queue that is consuming."""
        queue = self.mailbox.get_queue(self.hostname)
        queue.on_declared = self._warn_if_in_use
        consumer = kombu().Consumer(
            self.channel,
            [queue],
            no_ack=True,
            accept=self.mailbox.accept,
            callbacks=[self.receive],
            on_decode_error=self._on_decode_error,
        )
        consumer.consume()
        return consumer

    def receive(self, body: Any, message: Any) -> None:
        """Run the command of one request, if it is for this node.

        Raises:
            SystemExit: a command wants the worker to stop.
            One of the transport's errors, when the reply cannot be sent.
        """
        if not isinstance(body, dict) or not isinstance(body.get("method"), str):
            logger.error("Received a remote control message that names no method; it is ignored.")
            return
        self.mailbox.clock.adjust(message.headers.get("clock") or 0)
        if self._is_meant(body):
            self.dispatch(body["method"], body.get("arguments"), body.get("reply_to"), body.get("ticket"))

    def dispatch(self, method: str, arguments: Any = None, reply_to: Any = None, ticket: Any = None) -> Any:
        """Run one command, and send what it returns to `reply_to`."""
        try:
            reply = self.commands[method](self.state, **(arguments or {}))
        except KeyError as exc:
            logger.error("No such control command, or it misses a value: %s", exc)
            reply = {"error": repr(exc)}
        except Exception as exc:
            # A stranger's arguments, or a command of the user's: the caller is told.
            logger.exception("Control command %s failed: %r", method, exc)
            reply = {"error": repr(exc)}
        if reply_to:
            self._reply({self.hostname: reply}, reply_to, ticket)
        return reply

    def _is_meant(self, body: dict[str, Any]) -> bool:
        destination, pattern, matcher = body.get("destination"), body.get("pattern"), body.get("matcher")
        if destination:
            return self.hostname in destination
        if pattern and matcher:
            return bool(kombu("kombu.matcher").match(self.hostname, pattern, matcher))
        return True

    def _reply(self, data: dict[str, Any], reply_to: dict[str, Any], ticket: Any) -> None:
        module = kombu()
        exchange = module.Exchange(
            reply_to["exchange"], type="direct", delivery_mode="transient", durable=False
        )
        module.Producer(self.channel, auto_declare=False).publish(
            data,
            exchange=exchange,
            routing_key=reply_to["routing_key"],
            declare=[exchange],
            headers={"ticket": ticket, "clock": self.mailbox.clock.forward()},
            serializer=self.mailbox.serializer,
        )

    def _warn_if_in_use(self, name: str, messages: int, consumers: int) -> None:
        if consumers:
            logger.warning(
                "A node named %s is already using the mailbox %s. Give every worker a name of its own with -n, or "
                "stop the other one; until then remote control reaches either of them.",
                self.hostname,
                name,
            )

    def _on_decode_error(self, message: Any, exc: BaseException) -> None:
        logger.error("Cannot decode a remote control message: %r; it is ignored.", exc)


def make_node(c: Consumer, channel: Any) -> MailboxNode:
    """The worker's mailbox, using `channel`."""
    state = ControlState(c.app, c.hostname, c)
    return MailboxNode(c.app.control.mailbox, channel, state, panel)
