"""What a broker can do, as far as its transport decides: ours, those of kombu, and others.

A transport says it itself in `Transport.implements`: `exchange_type` is kombu's own entry, and `priorities` (`NO`,
`YES` or `DECLARED`) and `delays` may be added: `implements = Base.implements.extend(priorities="no", delays=False)`.
For the transports of kombu a table stands in. What nobody has said anything about counts as possible: a wrong refusal
does more harm than a late error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

NO = "no"
YES = "yes"
DECLARED = "declared"
"""Priorities count in queues that are declared for them."""

STANDARD_TYPES = frozenset({"direct", "topic", "fanout", "headers"})

_KOMBU = "kombu.transport."
_WITHOUT_PRIORITIES = frozenset(
    {
        "SLMQ", "SQS", "azureservicebus", "azurestoragequeues", "confluentkafka", "consul", "etcd", "filesystem",
        "gcpubsub", "memory", "pgmq", "pyro", "sqlalchemy",
    }
)  # fmt: skip
_REDELIVERY = {
    "SLMQ": ("visibility_timeout", 1800.0),
    "SQS": ("visibility_timeout", 1800.0),
    "azureservicebus": ("peek_lock_seconds", 60.0),
    "pgmq": ("visibility_timeout", 1800.0),
    "redis": ("visibility_timeout", 3600.0),
}
"""Module of kombu -> the option for the time after which a message that is held comes again, and its default."""
_SQS_RENEWALS_END = 12 * 3600.0  # ours renews what is held; SQS ends that twelve hours after the receipt
_KEEP_DELAYED = ("qbrokers.amqp", "qbrokers.redis", "qbrokers.sqlite")


@frozen
class Redelivery:
    """A broker that delivers a message again although its consumer lives and holds it."""

    seconds: float
    option: str | None = None
    """The transport option that sets the time; None: nothing does."""


@frozen
class Capabilities:
    """What one broker can do."""

    exchange_types: frozenset[str]
    """Types of the exchanges that tasks can be sent through."""
    further_types: bool
    """Whether the broker may have exchange types of its own besides (plugins of RabbitMQ)."""
    broadcast: bool
    """Whether a message can reach everybody who listens: remote control, events."""
    priorities: str
    """`NO`, `YES`, or `DECLARED`."""
    delays: bool
    """Whether the broker keeps a message until it is due; otherwise its consumer does."""
    redelivery: Redelivery | None = None
    """None: a consumer may hold a message as long as it lives."""

    def has_exchange_type(self, name: str) -> bool:
        """Whether tasks can be sent through an exchange of this type."""
        return name in self.exchange_types or (self.further_types and name not in STANDARD_TYPES)


def capabilities(connection: Any) -> Capabilities:
    """What the broker of a kombu connection can do; the connection need not be open."""
    transport = connection.get_transport_cls()
    options = connection.transport_options or {}
    declared = transport.implements
    virtual = isinstance(_exchange_classes(transport), Mapping)
    types = _exchange_types(transport)
    return Capabilities(
        exchange_types=types | {"fanout"} if _fans_out_on_request(transport, options) else types,
        further_types=not virtual,
        broadcast="fanout" in types,
        priorities=declared.get("priorities") or _priorities(transport),
        delays=bool(declared.get("delays", _keeps_delayed(transport, options))),
        redelivery=_redelivery(transport, options),
    )


def _exchange_classes(transport: Any) -> Any:
    """What kombu's virtual channels route with: exchange type -> class."""
    return getattr(getattr(transport, "Channel", None), "exchange_types", None)


def _exchange_types(transport: Any) -> frozenset[str]:
    types = frozenset(transport.implements.exchange_type)
    classes = _exchange_classes(transport)
    if isinstance(classes, Mapping):
        # memory:// names a type more than it has; a subclass may have types that nobody names.
        types = (types & frozenset(classes)) | (frozenset(classes) - STANDARD_TYPES)
    if getattr(getattr(transport, "Channel", None), "supports_fanout", True) is False:
        types -= {"fanout"}
    return types


def _fans_out_on_request(transport: Any, options: Mapping[str, Any]) -> bool:
    """SQS fans tasks out with the help of SNS, if told so. Remote control does not use that."""
    switch = getattr(getattr(transport, "Channel", None), "supports_fanout", False)
    is_computed = not isinstance(switch, bool)  # a descriptor, which looks at the option
    return is_computed and bool(options.get("supports_fanout"))


def _priorities(transport: Any) -> str:
    if _module(transport) in _WITHOUT_PRIORITIES:
        return NO
    return DECLARED if transport.driver_type == "amqp" else YES


def _redelivery(transport: Any, options: Mapping[str, Any]) -> Redelivery | None:
    if _comes_from(transport, "qbrokers.sqs"):
        return Redelivery(_SQS_RENEWALS_END)
    known = _REDELIVERY.get(_module(transport) or "")
    # Queues that were made in AWS have a time of their own, and a renewed lock ends late.
    if known is None or options.get("predefined_queues") or options.get("use_lock_renewal"):
        return None
    option, default = known
    return Redelivery(float(options.get(option) or default), option)


def _module(transport: Any) -> str | None:
    """The name of kombu's transport that `transport` is, or is made from; None when it is another."""
    for cls in transport.__mro__:
        name = cls.__module__
        if name.startswith(_KOMBU) and not name.startswith((f"{_KOMBU}virtual", f"{_KOMBU}base")):
            return str(name[len(_KOMBU) :].partition(".")[0])
    return None


def _keeps_delayed(transport: Any, options: Mapping[str, Any]) -> bool:
    return _comes_from(transport, *_KEEP_DELAYED) and bool(options.get("native_delayed_delivery", True))


def _comes_from(transport: Any, *modules: str) -> bool:
    return any(cls.__module__.startswith(modules) for cls in transport.__mro__)
