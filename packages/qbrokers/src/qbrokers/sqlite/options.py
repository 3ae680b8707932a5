"""Where a SQLite broker lives and how it behaves, read from a URL and transport options."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import evolve, field, fields_dict, frozen, validators

from qbrokers.batching import DEFAULT_LEASE_SECONDS
from qbrokers.errors import BadBrokerURL
from qbrokers.options import refuse_misspelt

_MEMORY_NAMES = {"", ":memory:"}


@frozen(kw_only=True)
class Options:
    """Settings of one connection to a SQLite broker.

    Attributes:
        path: Absolute path of the database file.
        lease_seconds: A consumer that renews nothing for so long loses its messages to others.
        heartbeat_seconds: How often a consumer renews; 0 means a third of the lease.
        busy_timeout_seconds: How long to wait for another process's write lock.
        poll_seconds: How long an idle consumer sleeps at most when no wake-up arrives.
        watch_seconds: How often a consumer looks for dead consumers.
        batch_size: How many messages one claim takes at most from the database.
        durability: `"normal"` survives the death of any process; `"full"` survives a power cut as well,
            at the price of one fsync per transaction.
        max_bytes: Size that the database file does not outgrow; 0 means no limit.
        deadletter_queue: Queue for messages that no binding matches; empty means they are dropped, as AMQP
            does. queue_order_strategy: `"round_robin"` shares a claim among the queues, `"priority"` empties
            the queues in the order in which they were consumed, `"sorted"` in the order of their names.
    """

    path: str
    lease_seconds: float = field(default=DEFAULT_LEASE_SECONDS, validator=validators.gt(0))
    heartbeat_seconds: float = field(default=0.0, validator=validators.ge(0))
    busy_timeout_seconds: float = field(default=10.0, validator=validators.ge(0))
    poll_seconds: float = field(default=1.0, validator=validators.gt(0))
    watch_seconds: float = field(default=0.5, validator=validators.gt(0))
    batch_size: int = field(default=100, validator=validators.ge(1))
    durability: str = field(default="normal", validator=validators.in_(("normal", "full")))
    max_bytes: int = field(default=0, validator=validators.ge(0))
    deadletter_queue: str = ""
    queue_order_strategy: str = field(
        default="round_robin", validator=validators.in_(("round_robin", "priority", "sorted"))
    )

    @property
    def beat_seconds(self) -> float:
        """Seconds between two renewals of the lease."""
        return self.heartbeat_seconds or self.lease_seconds / 3


def _finite(value: Any) -> float:
    number = float(value)
    if not isfinite(number):
        raise ValueError("it must be a number")
    return number


_READERS: dict[str, Callable[[Any], Any]] = {"float": _finite, "int": int}
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    name: _READERS.get(str(attribute.type), str)
    for name, attribute in fields_dict(Options).items()
    if name != "path"
}


def parse(url: str, transport_options: Mapping[str, Any]) -> Options:
    """Read `sqlite:///relative.db?lease_seconds=30` or `sqlite:////absolute.db`.

    Args:
        url: The broker's URL; options in its query win over `transport_options`.
        transport_options: kombu's options; those that are not ours are left to others.

    Raises:
        BadBrokerURL: No file, a host instead of a path, an unknown option in the query, one of `transport_options`
            that is almost one of ours, or a bad value.
    """
    parts = urlsplit(url)
    options = Options(path=_path(url, parts.netloc, parts.path))
    refuse_misspelt(transport_options, _CONVERTERS)
    known = {name: value for name, value in transport_options.items() if name in _CONVERTERS}
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in query:
        if name not in _CONVERTERS:
            raise BadBrokerURL(f"unknown option {name!r} in {url!r}{_suggestion(name)}")
    for name, value in (known | query).items():
        options = _with_option(options, name, value)
    if options.beat_seconds >= options.lease_seconds:
        raise BadBrokerURL("heartbeat_seconds must be smaller than lease_seconds")
    return options


def _path(url: str, host: str, path: str) -> str:
    if host:
        raise BadBrokerURL(
            f"{url!r} names the host {host!r}; a path needs three slashes (sqlite:///{host}{path}), "
            f"an absolute one four (sqlite:////{host}{path})"
        )
    name = unquote(path[1:])
    if name in _MEMORY_NAMES:
        raise BadBrokerURL(
            f"{url!r} names no file; write sqlite:///file.db, or use memory:// for one process"
        )
    return os.path.abspath(name)


def _with_option(options: Options, name: str, value: Any) -> Options:
    try:
        return evolve(options, **{name: _CONVERTERS[name](value)})
    except (TypeError, ValueError) as error:
        raise BadBrokerURL(f"bad value {value!r} of the option {name}: {error.args[0]}") from error


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, _CONVERTERS, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(_CONVERTERS))}"
