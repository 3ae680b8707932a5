"""From URL and settings to the arguments of redis-py."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from qcore.errors import ImproperlyConfigured
from qcore.utils.imports import symbol_by_name

_CERT_REQS = {
    "CERT_REQUIRED": ssl.CERT_REQUIRED,
    "CERT_OPTIONAL": ssl.CERT_OPTIONAL,
    "CERT_NONE": ssl.CERT_NONE,
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path", "ssl_check_hostname")


def connection_parameters(url: str, conf: Any) -> dict[str, Any]:
    """Arguments of a redis-py connection pool; `tls` tells whether it is encrypted, `path` a UNIX socket.

    Raises:
        ImproperlyConfigured: the URL cannot be used.
    """
    parts = urlsplit(url if "://" in url else f"{url}://")
    query = dict(parse_qsl(parts.query))
    found: dict[str, Any] = {
        "username": unquote(parts.username) if parts.username else conf.redis_username,
        "password": unquote(parts.password) if parts.password else conf.redis_password,
        "socket_timeout": conf.redis_socket_timeout,
        "client_name": conf.redis_client_name,
        "retry_on_timeout": conf.redis_retry_on_timeout,
        "max_connections": conf.redis_max_connections,
    }
    if conf.redis_backend_health_check_interval:
        found["health_check_interval"] = conf.redis_backend_health_check_interval
    if "socket" in parts.scheme or parts.scheme == "unix":
        found["path"] = unquote(parts.path)
        found["db"] = _database(query.pop("virtual_host", query.pop("db", conf.redis_db or 0)))
    else:
        found["host"] = parts.hostname or conf.redis_host or "localhost"
        found["port"] = _port(url, parts) or conf.redis_port or 6379
        found["db"] = _database(parts.path.strip("/") or query.pop("db", None) or conf.redis_db or 0)
        found["socket_connect_timeout"] = conf.redis_socket_connect_timeout
        found["socket_keepalive"] = conf.redis_socket_keepalive
    _add_tls(found, parts.scheme, query, conf.redis_backend_use_ssl)
    _add_credentials(found, query, conf)
    for name in ("socket_timeout", "socket_connect_timeout", "health_check_interval"):
        if name in query:
            found[name] = float(query[name])
    return {name: value for name, value in found.items() if value is not None}


def _port(url: str, parts: Any) -> int | None:
    try:
        port: int | None = parts.port
    except ValueError as exc:
        raise ImproperlyConfigured(
            f"the port in the Redis URL {url.rpartition('@')[2]!r} is no number"
        ) from exc
    return port


def _database(value: Any) -> int:
    try:
        return int(str(value).strip("/") or 0)
    except ValueError as exc:
        raise ImproperlyConfigured(
            f"the Redis database must be a number, not {value!r}: redis://host:6379/0"
        ) from exc


def _add_tls(found: dict[str, Any], scheme: str, query: dict[str, str], setting: Any) -> None:
    if scheme != "rediss" and not setting:
        return
    options: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    for source in (setting if isinstance(setting, dict) else {}, query):
        for name in (*_TLS_OPTIONS, "ssl_cert_reqs"):
            if name in source:
                options[name] = source[name]
    required = options["ssl_cert_reqs"]
    if isinstance(required, str):
        if required not in _CERT_REQS:
            raise ImproperlyConfigured(
                f"ssl_cert_reqs must be CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE, not {required!r}"
            )
        options["ssl_cert_reqs"] = _CERT_REQS[required]
    if options["ssl_cert_reqs"] == ssl.CERT_NONE:
        options["ssl_check_hostname"] = False
    found.update(options, tls=True)


def _add_credentials(found: dict[str, Any], query: dict[str, str], conf: Any) -> None:
    provider = query.get("credential_provider") or conf.redis_backend_credential_provider
    if provider is None:
        return
    provider = symbol_by_name(provider) if isinstance(provider, str) else provider
    found["credential_provider"] = provider() if isinstance(provider, type) else provider
    found.pop("username", None)
    found.pop("password", None)


def make_pool(url: str, conf: Any, options: dict[str, Any]) -> Any:
    """A redis-py connection pool that serves sync commands, for a URL of any of our schemes.

    Args:
        url: `redis://`, `rediss://`, `redis+socket://`, `unix://` or `sentinel://`.
        conf: settings.
        options: `result_backend_transport_options` (`master_name`, `sentinel_kwargs`).
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    servers = url.split(";")
    parameters = connection_parameters(servers[0], conf)
    tls, path = parameters.pop("tls", False), parameters.pop("path", None)
    # Retrying is ours to do, with one policy for everything; the protocol is the one that Celery's clients use.
    parameters.update(retry=Retry(NoBackoff(), 0), protocol=2)
    if path is not None:
        return redis.ConnectionPool(
            connection_class=redis.UnixDomainSocketConnection, path=path, **parameters
        )
    if servers[0].startswith("sentinel://"):
        return _sentinel_pool(servers, conf, options, parameters, tls)
    if tls:
        return redis.ConnectionPool(connection_class=redis.SSLConnection, **parameters)
    return redis.ConnectionPool(**parameters)


def _sentinel_pool(
    servers: list[str], conf: Any, options: dict[str, Any], parameters: dict[str, Any], tls: bool
) -> Any:
    from redis import sentinel

    master = options.get("master_name")
    if not master:
        raise ImproperlyConfigured(
            "sentinel:// needs the name of the master: "
            "result_backend_transport_options = {'master_name': 'mymaster'}"
        )
    hosts = [connection_parameters(server, conf) for server in servers]
    addresses = [
        (host["host"], urlsplit(server).port or 26379) for host, server in zip(hosts, servers, strict=True)
    ]
    for name in ("host", "port"):
        parameters.pop(name, None)
    manager = sentinel.Sentinel(addresses, sentinel_kwargs=options.get("sentinel_kwargs"))
    return sentinel.SentinelConnectionPool(master, manager, ssl=tls, **parameters)
