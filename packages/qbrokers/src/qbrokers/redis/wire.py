"""One connection to a Redis server: packed commands out, decoded replies in.

redis-py opens the connection (address, TLS, credentials, Sentinel, database); from then on hiredis packs and
parses, because the hot path sends and reads many commands at once. This is the only file that touches
redis-py's socket.

The protocol is RESP3: replies come in the order of the commands, and what the server sends unasked
(messages of a subscription, changed keys) is marked as a push, so one connection serves for all of them.
"""

from __future__ import annotations

import os
import select
import ssl
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import hiredis
import redis
from redis import exceptions

from qbrokers.redis import explaining
from qbrokers.redis.explaining import MIN_VERSION_TEXT, explained, unopened

Command = tuple[Any, ...]
Push = hiredis.PushNotification

MIN_VERSION = tuple(int(part) for part in MIN_VERSION_TEXT.split("."))

_RECV_BYTES = 1 << 18
_NOTHING = object()

pack: Callable[[Any], bytes] = hiredis.pack_command
"""Encodes one command, a tuple of text, bytes and numbers."""

CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.AuthenticationError,
)
CHANNEL_ERRORS: tuple[type[BaseException], ...] = (
    exceptions.ResponseError,
    exceptions.InvalidResponse,
    exceptions.DataError,
)

# A server in one of these states is as good as gone: another one, or a later try, is right.
_UNAVAILABLE = (
    "MOVED",
    "ASK",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "UNBLOCKED",
    "NOREPLICAS",
    "TRYAGAIN",
)


def error_of(text: str) -> Exception:
    """The exception for an error reply; its text begins with the server's, and goes on with advice."""
    word = text.split(" ", 1)[0]
    text = explained(text)
    if word == "LOADING":
        return exceptions.BusyLoadingError(f"the Redis server is loading its data set; try again ({text})")
    if word in _UNAVAILABLE:
        return exceptions.ConnectionError(text)
    if word in ("NOAUTH", "WRONGPASS"):
        return exceptions.AuthenticationError(text)
    return exceptions.ResponseError(text)


class Wire:
    """A connection that opens itself when first used, and reports its loss as
    `redis.exceptions.ConnectionError`.

    Not safe for use by several threads at once. A connection inherited through `fork` is never used: the
    child opens its own.

    Args:
        factory: Makes a redis-py connection, not yet open; called for every (re)connect.
        timeout_seconds: How long a reply may take.
        on_connect: Called with the wire after each connect, before anything else is sent.
    """

    def __init__(
        self,
        factory: Callable[[], redis.Connection],
        timeout_seconds: float,
        on_connect: Callable[[Wire], None] | None = None,
    ) -> None:
        self._factory = factory
        self._timeout = timeout_seconds
        self._on_connect = on_connect
        self._connection: Any = None
        self._sock: Any = None
        self._tls = False
        self._pid = 0
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._used = 0.0

    # -- life

    @property
    def connected(self) -> bool:
        return self._sock is not None and self._pid == os.getpid()

    def fileno(self) -> int:
        """File descriptor of the open connection.

        Raises:
            ConnectionError: It is not open.
        """
        if not self.connected:
            raise exceptions.ConnectionError("the connection to Redis is closed")
        return int(self._sock.fileno())

    def connect(self) -> None:
        """Open the connection unless it is open."""
        if self.connected:
            return
        self._drop()
        connection: Any = self._factory()
        try:
            connection.connect()
        except (exceptions.RedisError, OSError) as exc:
            connection.disconnect()
            raise unopened(exc, _address(connection), connection) from exc
        self._connection = connection
        self._sock = connection._sock
        self._tls = isinstance(self._sock, ssl.SSLSocket)
        self._pid = os.getpid()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING, replyError=error_of)
        self._sock.settimeout(self._timeout)
        self._used = monotonic()
        if self._on_connect is not None:
            try:
                self._on_connect(self)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the connection; does nothing when it is closed."""
        self._drop()

    def _drop(self) -> None:
        connection, sock, pid = self._connection, self._sock, self._pid
        self._connection = self._sock = None
        if connection is None:
            return
        if pid != os.getpid():
            # The parent goes on using it: close our copy of the descriptor, and say nothing to the server.
            connection._sock = None
            if self._tls:
                sock.detach()
            else:
                sock.close()
            return
        try:
            connection.disconnect()
        except OSError:
            pass

    def _lost(self, what: str, exc: BaseException | None) -> exceptions.ConnectionError:
        address = _address(self._connection)
        self._drop()
        reason = f": {exc}" if exc is not None else ""
        return exceptions.ConnectionError(f"connection to Redis at {address} lost while {what}{reason}")

    # -- waiting for the answer

    def call(self, *command: Any) -> Any:
        """Send one command and return its reply.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost or the reply is late.
            redis.exceptions.ResponseError: The server refused the command.
        """
        return self.exchange(pack(command), 1)[0]

    def pipeline(self, commands: Sequence[Command], *, raise_errors: bool = True) -> list[Any]:
        """Send many commands in one round trip and return their replies."""
        if not commands:
            return []
        packed = b"".join([pack(command) for command in commands])
        if len(packed) > explaining.MAX_ARGUMENT_BYTES:
            explaining.refuse_giants(commands)
        replies = self.exchange(packed, len(commands), raise_errors=False)
        if raise_errors:
            for command, reply in zip(commands, replies, strict=True):
                if isinstance(reply, Exception):
                    raise explaining.of_command(reply, command)
        return replies

    def exchange(self, packed: bytes, replies: int, *, raise_errors: bool = True) -> list[Any]:
        """Send packed commands and wait for so many replies."""
        if not self.connected:
            self.connect()
        elif monotonic() - self._used > 1.0:
            self._reopen_if_closed()
        self.send(packed)
        received: list[Any] = []
        deadline = monotonic() + self._timeout
        while len(received) < replies:
            received.extend(item for item in self._receive(deadline) if not isinstance(item, Push))
        self._used = monotonic()
        if raise_errors:
            for reply in received:
                if isinstance(reply, Exception):
                    raise reply
        return received

    def _reopen_if_closed(self) -> None:
        """A server or a firewall closes idle connections; noticed here, it costs nobody a lost command."""
        if select.select([self._sock], [], [], 0)[0]:
            try:
                alive = bool(self.read_ready())
            except exceptions.ConnectionError:
                alive = False
            if not alive:
                self._drop()
                self.connect()

    def _receive(self, deadline: float) -> list[Any]:
        items = self._parsed()
        while not items:
            if monotonic() > deadline:
                raise self._lost("waiting for a reply", TimeoutError(f"no reply within {self._timeout:g} s"))
            try:
                data = self._sock.recv(_RECV_BYTES)
            except OSError as exc:
                raise self._lost("waiting for a reply", exc) from exc
            if not data:
                raise self._lost("waiting for a reply", ConnectionResetError("closed by the server"))
            self._reader.feed(data)
            items = self._parsed()
        return items

    def _parsed(self) -> list[Any]:
        items = []
        gets = self._reader.gets
        try:
            while (item := gets()) is not _NOTHING:
                items.append(item)
        except hiredis.ProtocolError as exc:
            raise self._lost("reading", exc) from exc
        return items

    # -- not waiting

    def send(self, packed: bytes) -> None:
        """Send packed commands, whose replies `read_ready` will bring.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost.
        """
        try:
            self._sock.sendall(packed)
        except OSError as exc:
            raise self._lost("sending", exc) from exc

    def read_ready(self) -> list[Any]:
        """Replies and pushes that have arrived, called when the descriptor is readable.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost.
        """
        try:
            data = self._read_tls() if self._tls else self._sock.recv(_RECV_BYTES)
        except OSError as exc:
            raise self._lost("reading", exc) from exc
        if data is None:
            return []
        if not data:
            raise self._lost("reading", ConnectionResetError("closed by the server"))
        self._reader.feed(data)
        return self._parsed()

    def _read_tls(self) -> bytes | None:
        """A readable TLS socket may hold half a record, or more records than one read returns."""
        self._sock.settimeout(0)
        chunks: list[bytes] = []
        try:
            while True:
                chunk = self._sock.recv(_RECV_BYTES)
                if not chunk:
                    return b"".join(chunks)
                chunks.append(chunk)
                if not self._sock.pending():
                    break
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        finally:
            self._sock.settimeout(self._timeout)
        return b"".join(chunks) if chunks else None

    def check_version(self) -> None:
        """Make sure that the server is new enough.

        Raises:
            redis.exceptions.ConnectionError: It is too old; the message names both versions.
        """
        info = self.call(b"INFO", b"server")
        text = info.decode(errors="replace") if isinstance(info, bytes) else str(info)
        found = next((line[14:] for line in text.splitlines() if line.startswith("redis_version:")), "")
        numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
        if numbers and numbers < MIN_VERSION:
            raise exceptions.ConnectionError(
                f"{_address(self._connection)} runs Redis {found}; the transport needs {MIN_VERSION_TEXT} or newer "
                "(kombu's own transport works with older ones)"
            )


def _address(connection: Any) -> str:
    if connection is None:
        return "?"
    path = getattr(connection, "path", None)
    return str(path) if path else f"{getattr(connection, 'host', '?')}:{getattr(connection, 'port', '?')}"


def wait_readable(descriptors: Sequence[int], timeout_seconds: float) -> list[int]:
    """Descriptors that can be read within the timeout; closed ones are reported as readable."""
    if not hasattr(select, "poll"):  # eventlet takes it away
        return select.select(descriptors, [], [], max(0.0, timeout_seconds))[0]
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN | select.POLLERR | select.POLLHUP)
    return [fd for fd, _ in poller.poll(max(0.0, timeout_seconds) * 1000)]
