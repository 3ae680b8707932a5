"""Where the server is: a kombu connection's URL and options, turned into a maker of redis-py connections."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import redis
from attrs import field, frozen
from kombu.utils.url import _parse_url

from qbrokers.errors import BadBrokerURL
from qbrokers.redis.bases import symbol_by_name
from qbrokers.redis.masters import Sentinels
from qbrokers.redis.options import Options

DEFAULT_PORT = 6379

TLS_SCHEMES = frozenset({"rediss", "qrediss"})
"""Schemes of URLs that mean TLS, also where nobody has set TLS options; the server's certificate is checked then."""


@frozen
class Server:
    """A server, or the master that Sentinels know.

    Attributes:
        identity: Text that is the same for two connections to the same place (it holds no password).
        database: Number of the database; part of the names of channels.
        connect: Makes a redis-py connection that is not open yet.
        parameters: Keyword arguments of such a connection.
        kind: redis-py's class of it.
        addresses: Servers of a cluster that are known from the URL.
        master: Asks the Sentinels for the address of the master; None where there are none.
    """

    identity: str
    database: int
    connect: Callable[[], Any]
    parameters: dict[str, Any] = field(repr=False)
    kind: Any = None
    addresses: tuple[tuple[str, int], ...] = ()
    master: Callable[[], Any] | None = None

    def at(self, host: str, port: int) -> Callable[[], Any]:
        """Maker of connections to another server with the same credentials."""
        parameters = {**self.parameters, "host": host, "port": port}
        return lambda: self.kind(**parameters)


def server_of(client: Any, options: Options, default_port: int = DEFAULT_PORT) -> Server:
    """Read the address of a `kombu.Connection`.

    Raises:
        BadBrokerURL: The database is not a number.
    """
    parameters, connection_class = _parameters(client, options, default_port)
    where = parameters.get("path") or f"{parameters.get('host')}:{parameters.get('port')}"
    identity = f"{where}/{parameters['db']}?user={parameters.get('username')}"

    def connect() -> Any:
        return connection_class(**parameters)

    return Server(identity, parameters["db"], connect, parameters, connection_class)


def sentinel_of(client: Any, options: Options, default_port: int = 26379) -> Server:
    """Read the addresses of the Sentinels, and ask them for the master at every connect.

    Raises:
        BadBrokerURL: The option `master_name` is missing.
    """
    name = options.master_name
    if not name:
        raise BadBrokerURL(
            "a sentinel:// broker needs the transport option master_name, the name of the group to use"
        )
    parameters, connection_class = _parameters(client, options, default_port)
    addresses = _addresses(client, parameters, default_port)
    shared = {key: value for key, value in parameters.items() if key not in ("host", "port")}
    ssl = issubclass(connection_class, redis.SSLConnection)
    manager = Sentinels(
        addresses,
        options.sentinel_kwargs or {},
        min_other_sentinels=options.min_other_sentinels,
        **shared,
        **({"ssl": True} if ssl else {}),
    )
    pool = manager.master_for(name, redis.Redis, redis_connect_func=_connect_to_master).connection_pool
    identity = f"{options.master_name}@{sorted(addresses)}/{parameters['db']}"
    return Server(
        identity,
        parameters["db"],
        pool.make_connection,
        parameters,
        master=lambda: manager.discover_master(name),
    )


def _connect_to_master(connection: Any) -> None:
    """What redis-py does with a new connection, and the look at the role that Sentinel's guide for clients asks
    for: a Sentinel may not have heard yet, and a master that is back is one for a moment.
    """
    connection.on_connect()
    connection.send_command("ROLE")
    role = connection.read_response()[0]
    if role not in (b"master", "master"):
        raise redis.ConnectionError(
            f"{connection.host}:{connection.port} is no master any more; asking the Sentinels again"
        )


def cluster_of(client: Any, options: Options, default_port: int = DEFAULT_PORT) -> Server:
    """Read the addresses of some servers of a cluster.

    Raises:
        BadBrokerURL: The URL names a database; a cluster has one only.
    """
    parameters, connection_class = _parameters(client, options, default_port)
    if parameters["db"] != 0:
        raise BadBrokerURL(f"a Redis Cluster has database 0 only, not {parameters['db']}")
    addresses = _addresses(client, parameters, default_port)
    identity = f"cluster {sorted(addresses)}?user={parameters.get('username')}"

    def connect() -> Any:
        return connection_class(**parameters)

    return Server(identity, 0, connect, parameters, connection_class, tuple(addresses))


def _addresses(client: Any, parameters: dict[str, Any], default_port: int) -> list[tuple[str, int]]:
    """All servers of a URL with several parts, `scheme://a;scheme://b`."""
    addresses = []
    for alternative in client.alt or ():
        parsed = _parse_url(alternative)
        addresses.append((parsed.hostname or "127.0.0.1", parsed.port or default_port))
    return addresses or [(parameters["host"], parameters["port"])]


def _parameters(client: Any, options: Options, default_port: int) -> tuple[dict[str, Any], Any]:
    parameters: dict[str, Any] = {
        "host": client.hostname or "127.0.0.1",
        "port": client.port or default_port,
        "username": client.userid,
        "password": client.password,
        "socket_timeout": options.socket_timeout,
        "socket_connect_timeout": options.socket_connect_timeout,
        "socket_keepalive": options.socket_keepalive,
        "client_name": options.client_name,
        "protocol": 3,
    }
    connection_class: Any = redis.Connection
    provider = client.credential_provider
    if client.ssl or client.transport_cls in TLS_SCHEMES:
        connection_class = redis.SSLConnection
        if isinstance(client.ssl, dict):
            parameters.update(_tls_options(client.ssl))
    virtual_host = client.virtual_host
    if "://" in parameters["host"]:
        url = _parse_url(parameters["host"])
        query = dict(url.query)
        provider = query.pop("credential_provider", provider)
        parameters.update(username=url.username, password=url.password)
        if url.scheme == "socket":
            connection_class = redis.UnixDomainSocketConnection
            virtual_host = query.pop("virtual_host", virtual_host)
            parameters["path"] = "/" + (url.path or "")
            for name in ("host", "port", "socket_connect_timeout", "socket_keepalive"):
                parameters.pop(name, None)
    _use_credentials(parameters, provider)
    parameters["db"] = _database(virtual_host)
    return parameters, connection_class


def _tls_options(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """TLS options as redis-py takes them.

    Raises:
        BadBrokerURL: There is no such option; those of AMQP have other names.
    """
    known = {
        name
        for kind in (redis.SSLConnection, redis.Connection, redis.connection.AbstractConnection)
        for name in signature(kind).parameters
    }
    for name in given:
        if name not in known:
            wanted = sorted(each for each in known if each.startswith("ssl_"))
            near = difflib.get_close_matches(f"ssl_{name.removeprefix('ssl_')}", wanted, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(wanted)}"
            raise BadBrokerURL(f"unknown TLS option {name!r} of a Redis connection; {hint}")
    return given


def _use_credentials(parameters: dict[str, Any], provider: Any) -> None:
    if not provider:
        return
    made = symbol_by_name(provider)() if isinstance(provider, str) else provider
    if not isinstance(made, redis.CredentialProvider):
        raise BadBrokerURL(
            f"credential_provider must be a redis.CredentialProvider, not {type(made).__name__}"
        )
    parameters.pop("username", None)
    parameters.pop("password", None)
    parameters["credential_provider"] = made


def _database(virtual_host: Any) -> int:
    text = str(virtual_host if virtual_host is not None else "").strip("/")
    try:
        number = int(text or 0)
        if number >= 0:
            return number
        raise ValueError
    except ValueError:
        raise BadBrokerURL(f"the path of a redis:// URL is a database number, not {virtual_host!r}") from None
