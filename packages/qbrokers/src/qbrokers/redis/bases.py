"""kombu's classes that the transport is built on, and the calls into kombu that carry no annotations."""

from __future__ import annotations

from typing import Any

from kombu.transport import base, virtual
from kombu.utils.imports import symbol_by_name as _symbol_by_name

BaseChannel: Any = virtual.Channel
BaseMessage: Any = virtual.Message
BaseQoS: Any = virtual.QoS
BaseTransport: Any = virtual.Transport

rabbitmq_arguments: Any = base.to_rabbitmq_queue_arguments
"""kombu's words for queue limits (`expires`, `max_length`, …), in seconds, turned into `x-` arguments."""

_named: Any = _symbol_by_name


def symbol_by_name(name: str) -> Any:
    """The object a dotted name means."""
    return _named(name)
