"""What the channel and the delay queues need of their connection, and the delay queues of a channel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from qbrokers.amqp.confirming import Answered
from qbrokers.amqp.framing import CorkedWriter
from qbrokers.amqp.messages import Delivered
from qbrokers.amqp.options import Options
from qbrokers.amqp.settling import Book
from qbrokers.amqp.topology import Topology


class DelayedDelivery(Protocol):
    """The delay queues; `qbrokers.amqp.delaying.Delays`."""

    def wants(self, due: float, now: float) -> bool: ...

    def put_back(self, channel: Channel, delivered: Delivered) -> None: ...

    def route(self, msg: Any, exchange: str, routing_key: str, delay: int) -> tuple[Any, str, str]: ...

    def origin(self, exchange: str, routing_key: str, queue: str, msg: Any) -> tuple[str, str]: ...

    def serve_celery(self, queue: str) -> None: ...

    def declare_plain_queue(self, queue: str) -> None: ...

    def forget(self, queue: str) -> None: ...


class Connection(Protocol):
    """`qbrokers.amqp.connection.Connection`."""

    options: Options
    topology: Topology
    delays: DelayedDelivery
    writer: CorkedWriter
    blocked: bool
    broken: bool
    in_loop: bool
    waiters: int
    handed_out: int
    silent: bool
    bytes_sent: int
    channels: dict[int, Any] | None
    transport: Any

    @property
    def saying_goodbye(self) -> bool: ...

    def channel(self) -> Any: ...

    def corked(self) -> AbstractContextManager[None]: ...

    def flush(self) -> None: ...

    def answers_wait(self) -> None: ...

    def drain_events(self, timeout: float | None = None) -> None: ...

    def read_now_and_then(self) -> None: ...

    def is_doubtful(self) -> bool: ...

    def waited(self) -> None: ...

    def reply_seconds(self) -> float: ...

    def reply_expected(self) -> AbstractContextManager[None]: ...

    def close_channel(self, channel: Channel, close: Callable[[], object]) -> None: ...


class Channel(Protocol):
    """`qbrokers.amqp.channel.Channel`."""

    book: Book
    callbacks: dict[str, Any]

    @property
    def closed(self) -> bool: ...

    def hand_out(self, delivered: Delivered) -> None: ...

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None: ...

    def basic_reject(self, delivery_tag: int, requeue: bool) -> None: ...

    def select_confirms(self) -> None: ...

    def send_publish(
        self,
        msg: Any,
        exchange: str,
        routing_key: str,
        mandatory: bool,
        immediate: bool,
        answered: Answered | None,
    ) -> None: ...

    def write_answers(self) -> None: ...

    def collect(self) -> None: ...
