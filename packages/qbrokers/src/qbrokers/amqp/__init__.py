"""RabbitMQ, through py-amqp: batched acknowledgements, confirmed batches, delayed delivery."""

from __future__ import annotations

from qbrokers.amqp.channel import Channel
from qbrokers.amqp.connection import Connection
from qbrokers.amqp.errors import (
    ConsumerTimeout,
    MessageReturned,
    PartlyPublished,
    PublishRefused,
    PublishTimeout,
)
from qbrokers.amqp.transport import SSLTransport, Transport

__all__ = [
    "Channel",
    "Connection",
    "ConsumerTimeout",
    "MessageReturned",
    "PartlyPublished",
    "PublishRefused",
    "PublishTimeout",
    "SSLTransport",
    "Transport",
]
