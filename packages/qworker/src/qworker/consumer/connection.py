"""Step Connection: the connection to the broker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qcore.refusal import Gate
from qworker import bootsteps

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)


class Connection(bootsteps.StartStopStep):
    """Connects, trying again as the settings say."""

    def __init__(self, c: Consumer, **kwargs: Any) -> None:
        c.connection = None
        super().__init__(c, **kwargs)

    def start(self, c: Consumer) -> None:
        """Connect.

        Raises:
            qcore.errors.OperationalError: no connection within `broker_connection_max_retries` tries.
        """
        from qworker.consumer.reconnect import connect

        c.connection = connect(c)
        c.gate = Gate.of(c.connection)
        logger.info("Connected to %s", c.connection.as_uri())

    def stop(self, c: Consumer) -> None:
        """Nothing: the connection is closed last, by `shutdown`, or when it is replaced."""

    def shutdown(self, c: Consumer) -> None:
        """Close the connection."""
        connection, c.connection = c.connection, None
        if connection is not None:
            from qworker.consumer.reconnect import close_quietly

            close_quietly(connection)

    def info(self, c: Consumer) -> dict[str, Any]:
        """The `broker` part of the statistics."""
        if c.connection is None:
            return {"broker": "N/A"}
        info = c.connection.info()
        info.pop("password", None)
        return {"broker": info}
