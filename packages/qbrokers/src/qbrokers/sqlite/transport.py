"""The kombu transport: `sqlite:///path/of/the/broker.db`."""

from __future__ import annotations

import sqlite3
from typing import Any

from amqp.exceptions import ChannelError
from kombu.transport import base

from qbrokers.errors import BadBrokerURL, BrokerUnavailable, BrokerUnusable

from .channel import Channel
from .options import parse
from .session import Session


class Management(base.Management):
    """What `Connection.manager` offers."""

    def get_bindings(self) -> list[dict[str, str]]:
        """Return the bindings in the words of RabbitMQ's management API."""
        channel = self.transport.client.default_channel
        return [{"destination": q, "source": e, "routing_key": r} for q, e, r in channel.list_bindings()]


class Transport(base.Transport):
    """A broker in a file, for all processes of one machine."""

    Management = Management

    can_parse_url = True
    driver_type = "sqlite"
    driver_name = "qbrokers"
    client: Any
    connection_errors: Any = (BrokerUnavailable, BrokerUnusable)
    channel_errors: Any = (ChannelError,)
    recoverable_connection_errors = (BrokerUnavailable,)
    recoverable_channel_errors = ()
    implements = base.Transport.implements.extend(
        asynchronous=True,
        exchange_type=frozenset(["direct", "topic", "fanout"]),
        heartbeats=False,
    )

    def driver_version(self) -> str:
        """Return the version of SQLite."""
        return sqlite3.sqlite_version

    def establish_connection(self) -> Session:
        """Open the file that the URL names.

        Raises:
            BadBrokerURL: The URL makes no sense.
            BrokerUnavailable, BrokerUnusable: See `qbrokers.errors`.
        """
        return Session(self.client, parse(self._url(), self.client.transport_options or {}))

    def _url(self) -> str:
        # kombu hands the URL over as the host name, but when it switches to another URL it parses it itself.
        name = self.client.hostname or ""
        if "://" in name:
            return str(name)
        if self.client.virtual_host in (None, "", "/"):
            raise BadBrokerURL("the URL names no file; write sqlite:///file.db")
        return f"sqlite:///{self.client.virtual_host}"

    def close_connection(self, connection: Session) -> None:
        """Return unacknowledged messages and close."""
        connection.close()

    def verify_connection(self, connection: Session) -> bool:
        """Whether kombu may go on with this connection, instead of opening a new one without a word.

        A broken connection with consumers counts as connected: its next use raises the error. A new one
        would have no consumers, and the program would wait for ever.
        """
        return connection.usable or connection.has_consumers

    def create_channel(self, connection: Session) -> Channel:
        """Open a channel."""
        channel = Channel(connection, len(connection.channels) + 1)
        connection.channels.append(channel)
        return channel

    def close_channel(self, channel: Channel) -> None:
        """Close a channel."""
        channel.close()

    def drain_events(self, connection: Session, timeout: float | None = None, **_: Any) -> None:
        """Deliver one message; raises `socket.timeout` when none came in time."""
        connection.drain_events(timeout)

    def register_with_event_loop(self, connection: Session, loop: Any) -> None:
        """Let a kombu hub deliver the messages."""
        connection.register(loop)

    def unregister_from_event_loop(self, connection: Session, loop: Any) -> None:
        """Undo `register_with_event_loop`."""
        connection.unregister()

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the URL: it has no secrets."""
        return uri
