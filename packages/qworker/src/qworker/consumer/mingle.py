"""Step Mingle: a starting worker asks its neighbours which tasks were revoked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qworker import bootsteps

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)

# Brokers whose fanout reaches other machines.
COMPATIBLE_DRIVERS = frozenset({"amqp", "redis", "gcpubsub"})
ANSWER_SECONDS = 1.0


class Mingle(bootsteps.StartStopStep):
    """Takes over revoked ids and the logical clock from the other workers."""

    label = "Mingle"
    requires = ("qworker.consumer.connection:Connection",)

    def __init__(self, c: Consumer, without_mingle: bool = False, **kwargs: Any) -> None:
        self.enabled = not without_mingle and c.app.conf.worker_enable_remote_control and compatible(c.app)
        super().__init__(c, **kwargs)

    def start(self, c: Consumer) -> None:
        """Ask, wait for a second, and take over what came; after a reconnection there is nothing to ask."""
        if c.generation:
            return
        logger.info("mingle: searching for neighbors")
        replies = self.ask(c)
        if not replies:
            logger.info("mingle: no one here")
            return
        logger.info("mingle: sync with %d nodes", len(replies))
        for name, reply in replies.items():
            try:
                self.take_over(c, reply)
            except Exception:
                # Another program's reply: its revocations are missed, the worker starts.
                logger.exception("mingle: cannot use the reply of %s", name)
        logger.info("mingle: sync complete")

    def ask(self, c: Consumer) -> dict[str, Any]:
        """Node name -> reply of every other worker."""
        inspect = c.app.control.inspect(timeout=ANSWER_SECONDS)
        try:
            replies = inspect.hello(c.hostname, list(c.state.revoked)) or {}
        except c.broker_errors as exc:
            logger.warning("mingle: cannot ask the neighbors: %r", exc)
            return {}
        replies.pop(c.hostname, None)
        return {name: reply for name, reply in replies.items() if reply}

    def take_over(self, c: Consumer, reply: dict[str, Any]) -> None:
        """Use one reply: `{"clock": n, "revoked": [...] or {id: time}}`."""
        if c.state.clock is not None and reply.get("clock"):
            c.state.clock.adjust(reply["clock"])
        revoked = reply.get("revoked")
        if revoked:
            c.state.revoked.update(revoked)


def compatible(app: Any, drivers: frozenset[str] = COMPATIBLE_DRIVERS) -> bool:
    """Whether workers can reach each other over the app's broker."""
    with app.connection_for_read() as connection:
        return connection.transport.driver_type in drivers
