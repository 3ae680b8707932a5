"""kombu connections and pools as an app uses them: transports by entry point, no hidden waits, fork-safe.

This module imports kombu, so it is itself imported on first use only (see `qcore.connections`).
"""

# kombu is typed in parts only.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import ssl as tls
from queue import LifoQueue
from typing import Any

from kombu.connection import Connection, ConnectionPool
from kombu.messaging import Producer
from kombu.pools import ProducerPool
from kombu.transport import TRANSPORT_ALIASES

from qcore import plugins
from qcore.errors import ImproperlyConfigured
from qcore.settings.names import closest
from qcore.utils.imports import symbol_by_name
from qcore.utils.text import mask_url

_GROUP = "qcore.brokers"
_AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp", "librabbitmq"})
_TLS_SCHEMES = frozenset({"rediss", "sentinels", "valkeys"})


def transport_for(scheme: str) -> Any:
    """The transport class of an installed package for `scheme`; None leaves it to kombu.

    A dotted scheme (`proj.transports.MyTransport`) names the class itself.

    Raises:
        ImproperlyConfigured: nobody knows the scheme.
        MissingPackageError: its transport needs a package that is not installed.
    """
    if "." in scheme:
        return symbol_by_name(scheme)
    base = scheme.partition("+")[0]
    for name in (scheme, base):
        found = plugins.find(_GROUP, name)
        if found is not None:
            return found
    if base in TRANSPORT_ALIASES:
        return None
    known = {*TRANSPORT_ALIASES, *plugins.available(_GROUP)}
    near = closest(base, known)
    hint = f"did you mean {near}://?" if near else f"there are {', '.join(sorted(known))}"
    raise ImproperlyConfigured(f"unknown broker URL scheme {scheme!r}: {hint}")


def scheme_of(url: str) -> str | None:
    """What stands before `://`; None when nothing does."""
    scheme, found, _ = url.partition("://")
    return scheme if found else None


def tls_default(scheme: str | None, ssl: Any) -> Any:
    """TLS options of a scheme that means TLS, when none were given: the server's certificate is verified."""
    if ssl or scheme is None or scheme.partition("+")[0] not in _TLS_SCHEMES:
        return ssl
    return {"ssl_cert_reqs": tls.CERT_REQUIRED}


class BrokerConnection(Connection):
    """A `kombu.Connection` that finds our transports and tries each server once before it raises."""

    def _init_params(self, **params: Any) -> None:  # type: ignore[override]
        transport = params["transport"]
        if isinstance(transport, str):
            params["ssl"] = tls_default(transport, params["ssl"])
            if transport in _AMQP_SCHEMES:
                # kombu does the same, with a warning at each look at the URL.
                params["hostname"] = params["hostname"] or "localhost"
            params["transport"] = self._transport_of(transport)
        super()._init_params(**params)

    def _transport_of(self, scheme: str) -> Any:
        try:
            return transport_for(scheme) or scheme
        except ImproperlyConfigured:
            # An alternate URL whose scheme was a class path: all of them share one transport.
            previous = self.__dict__.get("transport_cls")
            if previous is None:
                raise
            return previous

    @property
    def connection(self) -> Any:
        """The transport's own connection, opened when need be; None when this one was closed."""
        if self._closed:
            return None
        return self._connection if self.connected else self._open()

    def create_transport(self) -> Any:
        """The transport, not connected yet.

        Raises:
            ImproperlyConfigured: The URL, or a transport option, makes no sense.
        """
        try:
            return super().create_transport()
        except ValueError as exc:
            raise ImproperlyConfigured(
                f"the broker {mask_url(str(self.hostname))} is not usable: {exc}"
            ) from exc

    def connect(self) -> Any:
        """Open the connection now; each of the servers is tried once."""
        return self._connection if self.connected else self._open()

    def _open(self) -> Any:
        # kombu's own way sleeps two seconds between tries, which a caller with a deadline cannot afford.
        tries = max(len(self.alt), 1)
        while True:
            tries -= 1
            try:
                return self._connection_factory()
            except self.recoverable_connection_errors:
                self.maybe_switch_next()
                if not tries:
                    raise

    def _connection_factory(self) -> Any:
        try:
            return super()._connection_factory()
        except ValueError as exc:  # what a transport says of a URL, or of an option, that makes no sense
            raise ImproperlyConfigured(f"the broker {self.safe_uri()} is not usable: {exc}") from exc
        except self.channel_errors as exc:
            if isinstance(exc, self.recoverable_connection_errors):
                raise
            # There is no channel yet: this is how py-amqp says that the login was refused.
            raise ConnectionError(
                f"the login was refused; check user and password in broker_url ({exc})"
            ) from exc

    def as_uri(  # type: ignore[override]
        self, include_password: bool = False, mask: str = "**", **more: Any
    ) -> str:
        """The URL in force; the password, if there is one, only with `include_password`."""
        nothing_to_hide = not self.transport.can_parse_url and not self.info()["password"]
        uri = str(super().as_uri(include_password or nothing_to_hide, mask, **more))
        shown, separator, rest = uri.partition("://")
        found: Any = self.transport_cls
        if not isinstance(found, str) and shown == str(found):
            shown = found.driver_type or found.__name__.lower()
            shown = {"redis": "rediss"}.get(shown, shown) if self.ssl else shown
        return shown + separator + rest

    def safe_uri(self) -> str:
        """The URL without password; never raises."""
        try:
            return mask_url(self.as_uri())
        except Exception:  # noqa: BLE001 - foreign transports; the text only loses detail
            return mask_url(str(self.hostname))


class PooledBrokerConnection(BrokerConnection):
    """A connection of a pool; left by an exception, it is closed before it goes back."""

    def __init__(self, pool: BrokerPool, **options: Any) -> None:
        self._pool = pool
        super().__init__(**options)

    def clone(self, **options: Any) -> Any:
        """A connection of its own, outside of the pool."""
        return BrokerConnection(**{**dict(self._info(resolve=False)), **options})

    def __exit__(self, exc_type: Any, exc: Any, traceback: Any) -> Any:
        if exc_type is not None and self._pool.limit:
            self._pool.replace(self)
        return super().__exit__(exc_type, exc, traceback)


class _ForkSafe:
    """Part of a pool: a forked child starts with new resources and leaves the parent's alone.

    The parent's are kept, unused, until the child ends: closing them would shut down the sockets of both.
    """

    close_after_fork = False
    acquire_timeout: float | None = None

    def acquire(self, block: bool = False, timeout: float | None = None) -> Any:
        """A resource; see `kombu.resource.Resource.acquire`."""
        if self.__dict__.setdefault("_pid", os.getpid()) != os.getpid():
            self._renew()
        timeout = self.acquire_timeout if timeout is None else timeout
        return super().acquire(block=block, timeout=timeout)  # type: ignore[misc]

    def _renew(self) -> None:
        values = self.__dict__
        values.setdefault("_inherited", []).append((values["_resource"], values["_dirty"]))
        values.update(_resource=LifoQueue(), _dirty=set(), _pid=os.getpid(), _closed=False)
        self.setup()  # type: ignore[attr-defined]


class BrokerPool(_ForkSafe, ConnectionPool):
    """Connections to one broker.

    Args:
        connection: what the others are made like.
        limit: how many; None or 0 for a new one at each use.
        acquire_timeout: seconds to wait for a free one; None waits for ever.
    """

    def __init__(self, connection: Any, limit: int | None, acquire_timeout: float | None = None) -> None:
        self.acquire_timeout = acquire_timeout
        self._pid = os.getpid()
        super().__init__(connection, limit=limit)

    def new(self) -> Any:
        """A further connection, not open yet."""
        return PooledBrokerConnection(self, **dict(self.connection._info(resolve=False)))

    def prepare(self, resource: Any) -> Any:
        """Make a connection that came back broken usable again."""
        ready = super().prepare(resource)
        if ready._closed:
            ready._closed = None
        return ready


class TaskProducerPool(_ForkSafe, ProducerPool):
    """`kombu.Producer` objects over the connections of a `BrokerPool`."""

    def __init__(self, connections: BrokerPool, limit: int | None, serializer: str) -> None:
        self.acquire_timeout = connections.acquire_timeout
        self._pid = os.getpid()
        super().__init__(
            connections, limit=limit, Producer=lambda channel: Producer(channel, serializer=serializer)
        )

    def force_close_all(self, close_pool: bool = True) -> None:
        """Close the connections as well, also those in use."""
        super().force_close_all(close_pool)
        self.connections.force_close_all(close_pool)
