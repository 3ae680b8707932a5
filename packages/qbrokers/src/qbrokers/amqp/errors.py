"""What can go wrong on AMQP beyond the errors of py-amqp, which these descend from.

    ConsumerTimeout (PreconditionFailed, RecoverableChannelError)  a message was held longer than the server allows
    PublishTimeout (RecoverableConnectionError)                    no confirmation, or no reply, in time
    PublishRefused (MessageNacked)                                 the broker took none of the messages
    PartlyPublished (ChannelError)                                 the broker took some of the messages
    MessageReturned (ChannelError)                                 no queue takes a mandatory message

kombu retries what is recoverable: the first three. A retry after the others would send messages twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from qbrokers.amqp.bases import (
    ChannelError,
    MessageNacked,
    PreconditionFailed,
    RecoverableChannelError,
    RecoverableConnectionError,
)


class ConsumerTimeout(PreconditionFailed, RecoverableChannelError):  # type: ignore[misc]
    """The server took its messages back, because one was not acknowledged within its `consumer_timeout`."""


class PublishTimeout(RecoverableConnectionError):  # type: ignore[misc]
    """The broker did not answer in time; whether it has the messages is not known."""


class PublishRefused(MessageNacked):  # type: ignore[misc]
    """The broker refused every message, for instance because its queue is full.

    Attributes:
        messages: Names of the messages.
    """

    def __init__(self, messages: Sequence[str]) -> None:
        self.messages = tuple(messages)
        super().__init__(f"the broker refused {_listed(messages)}; is a queue full (x-overflow)?")


class PartlyPublished(ChannelError):  # type: ignore[misc]
    """The broker took some messages of a batch, and refused others.

    Attributes:
        messages: Names of those that were refused.
    """

    def __init__(self, messages: Sequence[str]) -> None:
        self.messages = tuple(messages)
        super().__init__(f"the broker refused {_listed(messages)}, and took the others of the batch")


class MessageReturned(ChannelError):  # type: ignore[misc]
    """No queue takes a mandatory message; the others of its batch were published.

    Attributes:
        messages: Names of those that came back.
    """

    def __init__(self, messages: Sequence[str], reason: str, code: int) -> None:
        self.messages = tuple(messages)
        super().__init__(f"{reason}: no queue takes {_listed(messages)}", reply_code=code)


def _listed(messages: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(messages[:most])
    return shown if len(messages) <= most else f"{shown} and {len(messages) - most} more"
