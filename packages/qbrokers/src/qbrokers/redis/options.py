"""The transport options of the Redis transport, checked and with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from qbrokers.batching import DEFAULT_LEASE_SECONDS
from qbrokers.errors import BadBrokerURL
from qbrokers.options import (
    FLAG,
    SECONDS,
    SECONDS_OR_0,
    SOME_TEXT,
    TEXT,
    Checked,
    checked,
    choice,
    number,
    taken,
)

MAX_CLAIM = 500
"""Most messages of one claim; the script hands them to one HSET and one ZADD."""

ORDERS = ("round_robin", "sorted", "priority")


def _steps(value: Any) -> tuple[int, ...]:
    steps = tuple(value)
    if isinstance(value, str) or not all(isinstance(step, int) and 0 <= step <= 9 for step in steps):
        raise ValueError
    if not steps or list(steps) != sorted(set(steps)):
        raise ValueError
    return steps


def _or_default(default: float) -> Checked:
    """kombu's own transport takes 0 for "no limit"; here that means the default."""
    wanted, read = SECONDS_OR_0["kind"].wanted, SECONDS_OR_0["kind"].read
    return checked(wanted, lambda value: read(value) or default)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return dict(value)


def _fanout_prefix(value: Any) -> bool | str:
    if isinstance(value, str):
        try:
            value.format(db=0)
        except (LookupError, AttributeError) as exc:
            raise ValueError from exc
        return value
    return bool(FLAG["kind"].read(value))


@frozen(kw_only=True)
class Options:
    """What `transport_options` may hold. Names known from kombu's Redis transport keep their meaning.

    Attributes:
        lease_seconds: How long messages of a consumer that vanished stay its own.
        heartbeat_seconds: How often leases are renewed; a third of the lease when not given.
        claim_limit: Most messages taken in one round trip (the prefetch count bounds it, too).
        highest_priority: 9: a message published with priority 9 is served first, as on every broker, see
            `messages.mark_priority`. 0: the number means what it means to stock kombu on Redis.
        delay_eta_headers: Whether a message of a client that knows no delayed delivery goes back to the
            broker
            until its header `eta` is due.
        eta_hold_seconds: A message due sooner than this is delivered although its header `eta` lies ahead.
        visibility_timeout: Seconds after which a message delivered to a *stock* consumer counts as lost.
        queue_order_strategy: `round_robin` shares among the queues; `priority` empties them in the order of
            consumption, `sorted` in alphabetical order.
        socket_timeout: Seconds a reply may take before the connection counts as dead.
        health_check_interval: Seconds of silence after which an idle connection is tried.
        wait_replicas: Publishing returns when so many replicas have the message, too (`WAIT`); 0 does not wait.
        wait_timeout: Seconds to wait for them; then `NotReplicated` is raised.
        poll_seconds: Interval of looking for messages when the server cannot announce them.
    """

    lease_seconds: float = field(default=DEFAULT_LEASE_SECONDS, metadata=SECONDS)
    heartbeat_seconds: float = field(default=0.0, metadata=SECONDS_OR_0)
    claim_limit: int = field(
        default=100,
        metadata=number(f"a whole number from 1 to {MAX_CLAIM}", low=1, high=MAX_CLAIM, whole=True),
    )
    highest_priority: int = field(default=9, metadata=choice(9, 0))
    delay_eta_headers: bool = field(default=True, metadata=FLAG)
    eta_hold_seconds: float = field(default=5.0, metadata=SECONDS_OR_0)
    visibility_timeout: float = field(default=3600.0, metadata=SECONDS)
    queue_order_strategy: str = field(default="round_robin", metadata=choice(*ORDERS))
    global_keyprefix: str = field(default="", metadata=TEXT)
    sep: str = field(default="\x06\x16", metadata=SOME_TEXT)
    priority_steps: tuple[int, ...] = field(
        default=(0, 3, 6, 9),
        metadata=checked("a list of ascending whole numbers from 0 to 9 without repetition", _steps),
    )
    unacked_key: str = field(default="unacked", metadata=SOME_TEXT)
    unacked_index_key: str = field(default="unacked_index", metadata=SOME_TEXT)
    fanout_prefix: bool | str = field(
        default=True, metadata=checked("true, false, or text in which {db} is the database", _fanout_prefix)
    )
    fanout_patterns: bool = field(default=True, metadata=FLAG)
    socket_timeout: float = field(default=8.0, metadata=_or_default(8.0))
    socket_connect_timeout: float = field(default=5.0, metadata=_or_default(5.0))
    socket_keepalive: bool = field(default=True, metadata=FLAG)
    health_check_interval: float = field(default=4.0, metadata=_or_default(4.0))
    wait_replicas: int = field(default=0, metadata=number("a whole number, 0 or more", low=0, whole=True))
    wait_timeout: float = field(default=1.0, metadata=SECONDS)
    poll_seconds: float = field(default=0.1, metadata=SECONDS)
    client_name: str | None = field(default=None, metadata=TEXT)
    deadletter_queue: str | None = field(default=None, metadata=TEXT)
    master_name: str | None = field(default=None, metadata=SOME_TEXT)
    sentinel_kwargs: dict[str, Any] | None = field(default=None, metadata=checked("a mapping", _mapping))
    min_other_sentinels: int = field(
        default=0, metadata=number("a whole number, 0 or more", low=0, whole=True)
    )

    @property
    def heartbeat(self) -> float:
        return self.heartbeat_seconds or self.lease_seconds / 3

    @classmethod
    def of(cls, transport_options: Mapping[str, Any]) -> Options:
        """Pick ours from a connection's options; those of other transports, and of kombu itself, are left
        alone.

        Raises:
            BadBrokerURL: A value is of no use, or a name is misspelt.
        """
        options = taken(cls, transport_options)
        if options.heartbeat_seconds >= options.lease_seconds:
            raise BadBrokerURL(
                f"transport option heartbeat_seconds ({options.heartbeat_seconds:g}) must be shorter than "
                f"lease_seconds ({options.lease_seconds:g}); a third of it is usual"
            )
        if options.wait_replicas and options.wait_timeout >= options.socket_timeout:
            raise BadBrokerURL(
                f"transport option wait_timeout ({options.wait_timeout:g}) must be shorter than "
                f"socket_timeout ({options.socket_timeout:g})"
            )
        return options
