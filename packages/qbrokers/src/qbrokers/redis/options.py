"""The transport options of the Redis transport, checked and with their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from qbrokers.batching import DEFAULT_LEASE_SECONDS

MAX_CLAIM = 500
"""Most messages of one claim; the script hands them to one HSET and one ZADD."""

ORDERS = ("round_robin", "sorted", "priority")


def _steps(value: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(step) for step in value)


def _timeout(value: float | None) -> float:
    """kombu's own transport takes None for "no limit"; here that means the default."""
    return float(value or 8.0)


def _connect_timeout(value: float | None) -> float:
    return float(value or 5.0)


def _interval(value: float | None) -> float:
    return float(value or 4.0)


def _flag(value: bool | None) -> bool:
    return True if value is None else bool(value)


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
        poll_seconds: Interval of looking for messages when the server cannot announce them.
    """

    lease_seconds: float = field(default=DEFAULT_LEASE_SECONDS, converter=float)
    heartbeat_seconds: float = field(default=0.0, converter=float)
    claim_limit: int = field(default=100, converter=int)
    highest_priority: int = field(default=9, converter=int)
    delay_eta_headers: bool = True
    eta_hold_seconds: float = field(default=5.0, converter=float)
    visibility_timeout: float = field(default=3600.0, converter=float)
    queue_order_strategy: str = "round_robin"
    global_keyprefix: str = ""
    sep: str = "\x06\x16"
    priority_steps: tuple[int, ...] = field(default=(0, 3, 6, 9), converter=_steps)
    unacked_key: str = "unacked"
    unacked_index_key: str = "unacked_index"
    fanout_prefix: bool | str = True
    fanout_patterns: bool = True
    socket_timeout: float = field(default=8.0, converter=_timeout)
    socket_connect_timeout: float = field(default=5.0, converter=_connect_timeout)
    socket_keepalive: bool = field(default=True, converter=_flag)
    health_check_interval: float = field(default=4.0, converter=_interval)
    poll_seconds: float = field(default=0.1, converter=float)
    client_name: str | None = None
    deadletter_queue: str | None = None
    master_name: str | None = None
    sentinel_kwargs: dict[str, Any] | None = None
    min_other_sentinels: int = 0

    def __attrs_post_init__(self) -> None:
        if self.lease_seconds <= 0:
            raise ValueError(f"transport option lease_seconds must be positive, not {self.lease_seconds}")
        if not 0 <= self.heartbeat_seconds < self.lease_seconds:
            raise ValueError(
                f"transport option heartbeat_seconds ({self.heartbeat_seconds}) must be shorter than "
                f"lease_seconds ({self.lease_seconds}); a third of it is usual"
            )
        if not 1 <= self.claim_limit <= MAX_CLAIM:
            raise ValueError(f"transport option claim_limit must be 1..{MAX_CLAIM}, not {self.claim_limit}")
        if self.highest_priority not in (0, 9):
            raise ValueError(f"transport option highest_priority must be 9 or 0, not {self.highest_priority}")
        if self.queue_order_strategy not in ORDERS:
            raise ValueError(
                f"transport option queue_order_strategy must be one of {', '.join(ORDERS)}, "
                f"not {self.queue_order_strategy!r}"
            )

    @property
    def heartbeat(self) -> float:
        return self.heartbeat_seconds or self.lease_seconds / 3

    @classmethod
    def of(cls, transport_options: Mapping[str, Any]) -> Options:
        """Pick ours from a connection's options; those of other transports, and of kombu itself, are left
        alone.

        Raises:
            ValueError: A value is out of range.
        """
        known = cls.__attrs_attrs__
        return cls(**{a.name: transport_options[a.name] for a in known if a.name in transport_options})
