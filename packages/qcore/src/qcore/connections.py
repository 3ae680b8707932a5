"""Connections to the broker, from the settings.

`broker_url` is one URL, several separated by `;`, or a list; with several, the first that answers serves.
`broker_read_url` and `broker_write_url` name other servers for consuming and sending. With nothing set
anywhere the embedded broker is used (`qcore.embedded`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from qbrokers.errors import QBrokersError
from qcore.edge import kombu
from qcore.embedded import EmbeddedDefault, embedded_default
from qcore.errors import ImproperlyConfigured
from qcore.utils.imports import symbol_by_name
from qcore.utils.text import mask_url

if TYPE_CHECKING:
    from qcore.kombu_connection import BrokerConnection, BrokerPool, TaskProducerPool

_AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})

_REFUSALS = {
    403: "give the user of broker_url this permission (rabbitmqctl set_permissions)",
    406: "a queue or exchange of this name is there with other arguments: declare it alike (task_queues, "
    "task_default_queue_type, task_queue_max_priority), use another name, or delete it on the broker when it is empty",
}
"""AMQP's code of an error of a channel -> what to do."""

__all__ = [
    "EmbeddedDefault",
    "broker_urls",
    "connection_error_message",
    "connection_for_read",
    "connection_for_write",
    "connection_pool",
    "describe",
    "embedded_default",
    "is_broker_error",
    "producer_pool",
    "publishing_connection",
    "refusal_of",
    "result_backend_url",
]


def connection_for_read(
    conf: Any, url: str | Iterable[str] | None = None, **options: Any
) -> BrokerConnection:
    """A connection for consuming, not open yet.

    Args:
        conf: the app's settings.
        url: instead of the configured one.
        options: of `kombu.Connection`, before those of the settings.

    Raises:
        ImproperlyConfigured: the URL is not usable.
        MissingPackageError: its transport needs a package that is not installed.
    """
    return _connect(conf, _urls(url) or broker_urls(conf, "read"), options)


def connection_for_write(
    conf: Any, url: str | Iterable[str] | None = None, **options: Any
) -> BrokerConnection:
    """A connection for sending, not open yet; see `connection_for_read`."""
    return _connect(conf, _urls(url) or broker_urls(conf, "write"), options)


def publishing_connection(conf: Any) -> BrokerConnection:
    """A connection for sending whose opening takes no longer than a publish may."""
    limits = [limit for limit in (conf.broker_connection_timeout, conf.broker_publish_timeout) if limit]
    # Transports that wait for the broker's confirmation know this option; py-amqp itself ignores it.
    amqp = kombu("qcore.kombu_connection").scheme_of(broker_urls(conf, "write")[0]) in _AMQP_SCHEMES
    timeout = {"publish_timeout": conf.broker_publish_timeout} if amqp and conf.broker_publish_timeout else {}
    return connection_for_write(
        conf,
        connect_timeout=min(limits) if limits else None,
        transport_options={**timeout, **(conf.broker_transport_options or {})},
    )


def connection_pool(conf: Any) -> BrokerPool:
    """A pool of `broker_pool_limit` connections for consuming and for everything but tasks."""
    return _pool(conf, connection_for_read(conf))


def producer_pool(conf: Any) -> TaskProducerPool:
    """A pool of `kombu.Producer` objects with connections of their own."""
    module = kombu("qcore.kombu_connection")
    pool: TaskProducerPool = module.TaskProducerPool(
        _pool(conf, connection_for_write(conf)), conf.broker_pool_limit or None, conf.task_serializer
    )
    return pool


def describe(connection: Any) -> str:
    """The URL of a connection without its password, for texts; never raises."""
    safe = getattr(connection, "safe_uri", None)
    return safe() if safe is not None else mask_url(str(connection.as_uri()))


def connection_error_message(exc: BaseException, connection: Any) -> str:
    """`cannot reach the broker amqp://guest:**@localhost:5672//: [Errno 111] Connection refused`."""
    return f"cannot reach the broker {describe(connection)}: {str(exc) or type(exc).__name__}"


def is_broker_error(exc: BaseException) -> bool:
    """Whether `exc` says that a broker is away, or refuses to work."""
    amqp = kombu("kombu.transport.pyamqp").Transport
    general = (QBrokersError, ConnectionError, kombu("kombu.exceptions").OperationalError)
    return isinstance(exc, (*general, *amqp.connection_errors, *amqp.channel_errors))


def refusal_of(exc: BaseException) -> str | None:
    """What to do about an AMQP broker that will not do what was asked, however often; None for other errors."""
    advice = _REFUSALS.get(getattr(exc, "code", None) or 0)
    return None if advice is None else f"the broker refuses: {exc}; {advice}"


def broker_urls(conf: Any, direction: str = "write") -> list[str]:
    """The URLs in force for `read` or `write`, the preferred one first; they may hold passwords."""
    urls = _urls(conf[f"broker_{direction}_url"]) or _urls(conf.broker_url) or _from_parts(conf)
    if urls:
        return urls
    embedded = embedded_default(conf)
    if embedded is not None:
        return [embedded.ensure().broker_url]
    # Only the other direction has a URL of its own.
    return ["amqp://"]


def result_backend_url(conf: Any) -> Any:
    """URL of the result store in force: the setting, else the embedded default's, else None (no results)."""
    configured = conf.result_backend
    if configured is not None:
        return configured
    embedded = embedded_default(conf)
    return None if embedded is None else embedded.ensure().result_backend


def _urls(url: str | Iterable[str] | None) -> list[str]:
    if not url:
        return []
    parts = url.split(";") if isinstance(url, str) else [part for item in url for part in item.split(";")]
    return [part.strip() for part in parts if part.strip()]


def _from_parts(conf: Any) -> list[str]:
    if not (conf.broker_transport or conf.broker_host):
        return []
    scheme = conf.broker_transport or "amqp"
    user = quote(conf.broker_user or "", safe="")
    password = f":{quote(conf.broker_password, safe='')}" if conf.broker_password else ""
    login = f"{user}{password}@" if user or password else ""
    port = f":{conf.broker_port}" if conf.broker_port else ""
    return [f"{scheme}://{login}{conf.broker_host or ''}{port}/{quote(conf.broker_vhost or '', safe='')}"]


def _connect(conf: Any, urls: list[str], options: dict[str, Any]) -> BrokerConnection:
    module = kombu("qcore.kombu_connection")
    scheme = module.scheme_of(urls[0])
    settings: dict[str, Any] = {
        "ssl": conf.broker_use_ssl or False,
        "login_method": conf.broker_login_method,
        "failover_strategy": _strategy(conf.broker_failover_strategy),
        "connect_timeout": conf.broker_connection_timeout,
    }
    settings.update({name: value for name, value in options.items() if value is not None})
    settings["transport_options"] = {
        **(conf.broker_transport_options or {}),
        **(options.get("transport_options") or {}),
    }
    queue_type = conf.broker_native_delayed_delivery_queue_type
    if scheme in _AMQP_SCHEMES and queue_type != "quorum":  # what the transport takes by itself
        settings["transport_options"].setdefault("native_delayed_delivery_queue_type", queue_type)
    if scheme is not None:
        settings["ssl"] = module.tls_default(scheme, settings["ssl"])
        if "transport" not in settings:
            transport = module.transport_for(scheme)
            if transport is not None:
                settings["transport"] = transport
    plain = [_plain_scheme(url, module) for url in urls]
    try:
        connection: BrokerConnection = module.BrokerConnection(
            plain[0], **{"alternates": plain, **settings} if len(plain) > 1 else settings
        )
    except ValueError as exc:
        raise ImproperlyConfigured(f"broker URL {mask_url(urls[0])!r} is not usable: {exc}") from exc
    except TypeError as exc:  # kombu takes what follows a "?" for arguments of its own
        raise ImproperlyConfigured(
            f"broker URL {mask_url(urls[0])!r} is not usable: an option after the ? is unknown ({exc}); options of "
            "the transport belong in broker_transport_options"
        ) from exc
    return connection


def _plain_scheme(url: str, module: Any) -> str:
    """`url` with the class path in front of `://`, which kombu refuses there, cut down to the class name."""
    scheme = module.scheme_of(url)
    if scheme is None or "." not in scheme:
        return url
    class_name = scheme.replace(":", ".").rpartition(".")[2]
    return f"{class_name.lower()}{url[len(scheme) :]}"


def _strategy(strategy: Any) -> Any:
    if isinstance(strategy, str) and ("." in strategy or ":" in strategy):
        return symbol_by_name(strategy)
    if isinstance(strategy, str) and strategy not in (known := kombu("kombu.connection").failover_strategies):
        raise ImproperlyConfigured(
            f"broker_failover_strategy must be {' or '.join(known)}, a callable or its dotted name, "
            f"not {strategy!r}"
        )
    return strategy


def _pool(conf: Any, connection: Any) -> BrokerPool:
    module = kombu("qcore.kombu_connection")
    pool: BrokerPool = module.BrokerPool(
        connection, conf.broker_pool_limit or None, conf.broker_pool_acquire_timeout
    )
    return pool
