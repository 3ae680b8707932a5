"""The event message: its fields, its routing key and its exchange.

An event is a plain dict. Every event has `type`, `hostname`, `utcoffset` (signed hours, UTC minus local
time), `pid` (of the process that sends it), `clock` (logical) and `timestamp` (epoch seconds).
"""

from __future__ import annotations

import time
from typing import Any

from qcore.edge import kombu

DEFAULT_EXCHANGE = "celeryev"

# On these brokers a topic exchange cannot reach consumers that come and go; Celery uses fanout there and so
# must we, or the two would not hear each other.
FANOUT_DRIVERS = frozenset({"redis", "gcpubsub"})


def make_event(type: str, fields: dict[str, Any]) -> dict[str, Any]:
    """An event of `type`; `timestamp` is added when `fields` has none."""
    event = dict(fields)
    event["type"] = type
    if "timestamp" not in event:
        event["timestamp"] = time.time()
    return event


def group_of(type: str) -> str:
    """The group of an event type: `task` of `task-sent`, `custom` of `custom-my-event`."""
    return type.partition("-")[0]


def routing_key_of(type: str) -> str:
    """The routing key of an event type: `task.sent` of `task-sent`."""
    return type.replace("-", ".")


def event_exchange(connection: Any, name: str = DEFAULT_EXCHANGE) -> Any:
    """The kombu exchange that events of `connection`'s broker go through.

    Topic on AMQP and most others, fanout on Redis and Google Pub/Sub; durable, messages transient.
    """
    kind = "fanout" if connection.transport.driver_type in FANOUT_DRIVERS else "topic"
    return kombu().Exchange(name, type=kind)
