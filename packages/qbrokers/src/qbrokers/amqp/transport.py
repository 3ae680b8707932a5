"""The transport: kombu's way in."""

from __future__ import annotations

from typing import Any

from qbrokers.amqp.bases import BaseTransport, MessageNacked, RecoverableConnectionError
from qbrokers.amqp.connection import Connection
from qbrokers.amqp.errors import PublishRefused


class Transport(BaseTransport):  # type: ignore[misc]
    """RabbitMQ through py-amqp, with batches; for `amqp://`, `pyamqp://` and `amqps://`."""

    Connection = Connection
    connection_errors = (*BaseTransport.connection_errors, MessageNacked)
    recoverable_connection_errors = (*BaseTransport.recoverable_connection_errors, PublishRefused)
    implements = BaseTransport.implements.extend(batch_publish=True)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Work in a kombu hub: read what has arrived, and send the answers at the end of each tick."""
        connection.enter_loop(loop)
        tick = self._tick = _Tick(connection, loop)
        loop.on_tick.add(tick)
        loop.add_reader(connection.sock, self.on_readable, connection, loop)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        """Leave the hub."""
        tick = getattr(self, "_tick", None)
        if tick is not None:
            loop.on_tick.discard(tick)
        if connection is not None:
            connection.leave_loop()
            if connection.connected:
                loop.remove_reader(connection.sock)

    def on_readable(self, connection: Any, loop: Any) -> None:
        """Handle what has arrived.

        Raises:
            RecoverableConnectionError: The connection is gone.
        """
        if not connection.connected:
            raise RecoverableConnectionError("the connection to the broker is closed")
        connection.read_available()


class _Tick:
    """Called by the hub before each wait."""

    def __init__(self, connection: Connection, loop: Any) -> None:
        self.connection = connection
        self.loop = loop

    def __call__(self) -> None:
        connection = self.connection
        if not connection.connected:
            self.loop.on_tick.discard(self)
            return
        connection.end_of_tick()


class SSLTransport(Transport):
    """The same over TLS, for `amqps://`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.client.ssl:
            self.client.ssl = True
