"""The transport options that ours adds to those of py-amqp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import fields, frozen

from qbrokers.errors import BadBrokerURL

QUEUE_TYPES = ("quorum", "classic")


@frozen(kw_only=True)
class Options:
    """What `transport_options` may hold besides the arguments of `amqp.Connection`.

    Attributes:
        confirm_publish: Whether publishing waits until the broker has taken tasks, and what is persistent or mandatory.
        publish_timeout: Seconds publishing, and any reply of the server, may take.
        eta_hold_seconds: A message whose header `eta` lies further ahead goes back to the broker until then.
        native_delayed_delivery: Whether that, and the property `eta_timestamp`, use the delay queues.
        native_delayed_delivery_queue_type: Their type, `quorum` or `classic`, when they have to be made.
        ack_delay_seconds: How long an acknowledgement may wait in a program that does not come back to wait.
        close_timeout: Seconds to wait for the server's goodbye.
        max_write_bytes: Frames are written in pieces of about this size.
        silence_seconds: A server that sends nothing for so long, not even heartbeats, counts as gone; asks for
            heartbeats more often than `heartbeat` says where need be. 0: two intervals of `heartbeat`.
        idle_check_seconds: A connection without heartbeats that heard nothing for so long is tried before a message
            goes out on it. 0: it is not.
    """

    confirm_publish: bool = True
    publish_timeout: float = 30.0
    eta_hold_seconds: float = 5.0
    native_delayed_delivery: bool = True
    native_delayed_delivery_queue_type: str = "quorum"
    ack_delay_seconds: float = 0.25
    close_timeout: float = 2.0
    max_write_bytes: int = 262144
    silence_seconds: float = 8.0
    idle_check_seconds: float = 4.0

    @classmethod
    def take(cls, given: dict[str, Any]) -> Options:
        """Options out of a dict of arguments; they are removed from it. None means the default.

        Raises:
            BadBrokerURL: One makes no sense.
        """
        names = {attribute.name for attribute in fields(cls)}
        mine: Mapping[str, Any] = {
            name: value for name in names & given.keys() if (value := given.pop(name)) is not None
        }
        options = cls(**mine)
        if options.native_delayed_delivery_queue_type not in QUEUE_TYPES:
            raise BadBrokerURL(
                f"native_delayed_delivery_queue_type must be quorum or classic, "
                f"not {options.native_delayed_delivery_queue_type!r}"
            )
        return options
