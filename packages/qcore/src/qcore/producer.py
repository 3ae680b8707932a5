"""Put encoded messages on the broker: pooled channels, one deadline, many messages in one round trip.

The road: `Prepared` (what to put where) -> `TaskProducer.publish` -> a `Link` (connection and channel of this
process) -> the broker. A link that failed is thrown away, never returned to the pool; links made before a
`fork` are never used after it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from attrs import define, field, frozen

from qcore import errors  # kombu's classes are looked up there on first use
from qcore.queues import is_broadcast

logger = logging.getLogger(__name__)


@frozen(kw_only=True, eq=False)
class Prepared:
    """One encoded message and its address."""

    body: bytes
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    priority: int
    exchange: str
    routing_key: str
    queue: Any = None
    """The kombu Queue to declare first; None when the address was given by hand."""
    options: dict[str, Any] = field(factory=dict)
    """Further arguments of the channel's `basic_publish` (`mandatory`, …)."""


@frozen
class PublishPolicy:
    """How often and how long publishing is tried."""

    retry: bool = True
    max_retries: int | None = 3
    interval_start: float = 0.0
    interval_step: float = 0.2
    interval_max: float = 0.2
    deadline_seconds: float | None = 5.0
    errback: Callable[[BaseException, float], Any] | None = None
    retry_errors: tuple[type[BaseException], ...] | None = None

    def merged(self, retry: bool | None, overrides: Mapping[str, Any] | None) -> PublishPolicy:
        """This policy with the options of one call (`retry=`, `retry_policy=`)."""
        if retry is None and not overrides:
            return self
        known = {
            name: (overrides or {}).get(name, getattr(self, name))
            for name in ("max_retries", "interval_start", "interval_step", "interval_max", "errback")
        }
        errors = (overrides or {}).get("retry_errors")
        return PublishPolicy(
            retry=self.retry if retry is None else retry,
            deadline_seconds=self.deadline_seconds,
            retry_errors=tuple(errors) if errors else self.retry_errors,
            **known,
        )

    def intervals(self) -> Iterator[float]:
        """Seconds to wait before each further try."""
        attempt = 0
        while self.retry and (self.max_retries is None or attempt < self.max_retries):
            yield min(self.interval_start + attempt * self.interval_step, self.interval_max)
            attempt += 1


@define
class Link:
    """One connection with one channel, used by one thread at a time."""

    connection: Any
    pid: int
    channel: Any = None
    declared: set[str] = field(factory=set)

    def open(self) -> None:
        """Connect; kombu raises its `OperationalError` when that fails."""
        if self.channel is None:
            self.channel = self.connection.channel()

    def send(self, messages: Sequence[Prepared]) -> None:
        """Declare what is not declared yet and put the messages, in one round trip where the channel can."""
        self.open()
        channel = self.channel
        for message in messages:
            if message.queue is not None and message.queue.name not in self.declared:
                self.declare(message.queue)
        if len(messages) > 1 and hasattr(channel, "publish_many") and not any(m.options for m in messages):
            from qbrokers.batching import Publication

            channel.publish_many(
                [Publication(self.encode(m), m.exchange, m.routing_key) for m in messages],
            )
            return
        for message in messages:
            channel.basic_publish(
                self.encode(message),
                exchange=message.exchange,
                routing_key=message.routing_key,
                **message.options,
            )
        flush = getattr(channel, "flush", None)
        if flush is not None:
            flush()

    def encode(self, message: Prepared) -> Any:
        return self.channel.prepare_message(
            message.body,
            priority=message.priority,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=message.headers,
            properties=dict(message.properties),
        )

    def declare(self, queue: Any) -> None:
        if is_broadcast(queue):
            # The queue itself would be one more copy, which nobody consumes.
            queue.exchange(self.channel).declare()
        else:
            queue(self.channel).declare()
        self.declared.add(queue.name)

    def close(self) -> None:
        """Close without waiting for a server that does not answer."""
        try:
            self.connection.release()
        except Exception:
            logger.debug("closing a connection to the broker failed", exc_info=True)


class LinkPool:
    """Links of this process, most recently used first; at most `limit` exist at a time.

    Args:
        connect: makes a kombu Connection for writing; it need not be open.
        limit: None or 0 for no pooling: a link is closed after use.
        acquire_timeout: seconds to wait for a link when all are in use; None waits for ever.
    """

    def __init__(
        self, connect: Callable[[], Any], limit: int | None = 10, acquire_timeout: float | None = None
    ) -> None:
        self._connect = connect
        self.limit = limit or None
        self.acquire_timeout = acquire_timeout
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._free: deque[Link] = deque()
        self._slots = threading.BoundedSemaphore(self.limit) if self.limit else None

    @contextmanager
    def acquire(self, timeout: float | None = None) -> Iterator[Link]:
        """A link for this block; thrown away when the block raises.

        Raises:
            OperationalError: all links stayed in use for the acquire timeout.
        """
        if self._pid != os.getpid():
            self._reset()
        slots = self._slots
        limits = [seconds for seconds in (timeout, self.acquire_timeout) if seconds is not None]
        wait = min(limits) if limits else None
        if slots is not None and not slots.acquire(timeout=wait):
            raise errors.OperationalError(
                f"all {self.limit} connections for publishing are in use and none became free in {wait} s: "
                "raise broker_pool_limit or publish from fewer threads"
            )
        try:
            try:
                link = self._free.pop()
            except IndexError:
                link = Link(self._connect(), self._pid)
            try:
                yield link
            except BaseException:
                link.close()
                raise
            if slots is None:
                link.close()
            else:
                self._free.append(link)
        finally:
            if slots is not None:
                slots.release()

    def close(self) -> None:
        """Close the links that are not in use."""
        if self._pid != os.getpid():
            self._reset()
        while self._free:
            self._free.pop().close()


class Outbox:
    """Messages held back to go out together; may be used from several threads. See `TaskProducer.collect`."""

    __slots__ = ("_lock", "limit", "messages", "policy", "producer")

    def __init__(self, producer: TaskProducer, limit: int = 1000) -> None:
        self.producer = producer
        self.limit = limit
        self.messages: list[Prepared] = []
        self.policy: PublishPolicy | None = None
        self._lock = threading.Lock()

    def add(self, messages: Sequence[Prepared], policy: PublishPolicy) -> None:
        """Hold the messages; a full outbox is flushed at once."""
        self.messages.extend(messages)
        self.policy = policy
        if len(self.messages) >= self.limit:
            self.flush()

    def flush(self) -> None:
        """Put everything held. What could not be put stays, so that a later flush tries again."""
        if not self.messages:
            return
        with self._lock:
            waiting, self.messages = self.messages, []
            try:
                self.producer.publish_now(waiting, self.policy)
            except BaseException:
                self.messages[:0] = waiting
                raise


_outbox: ContextVar[Outbox | None] = ContextVar("qcore_outbox", default=None)


class TaskProducer:
    """Publishes prepared messages through pooled links.

    Args:
        pool: where links come from.
        policy: used where a call brings none.
        address: text naming the broker in errors, password masked.
    """

    def __init__(self, pool: LinkPool, policy: PublishPolicy, address: Callable[[], str]) -> None:
        self.pool = pool
        self.policy = policy
        self._address = address

    @contextmanager
    def collect(self, limit: int = 1000) -> Iterator[Outbox]:
        """Hold what this thread or asyncio task publishes, and put it in batches of at most `limit`.

        The rest goes out when the block ends. If the block raises, what was held so far is put as well: the
        calls that made it have returned.
        """
        outbox = Outbox(self, limit)
        token = _outbox.set(outbox)
        try:
            yield outbox
        finally:
            _outbox.reset(token)
            outbox.flush()

    @contextmanager
    def collect_into(self, outbox: Outbox | None) -> Iterator[None]:
        """Hold what is published in `outbox` without flushing it at the end; None publishes at once."""
        token = _outbox.set(outbox)
        try:
            yield
        finally:
            _outbox.reset(token)

    def collecting(self) -> bool:
        """Whether what this thread or asyncio task publishes is held back."""
        return _outbox.get() is not None

    def publish(
        self, messages: Sequence[Prepared], policy: PublishPolicy | None = None, channel: Any = None
    ) -> None:
        """Put the messages, or hold them while `collect` is in force.

        Args:
            messages: in order.
            policy: retries and deadline; default the producer's.
            channel: a channel of the caller's own; then nothing is retried or held.

        Raises:
            OperationalError: the broker could not be reached within the policy; nothing is known to be sent.
        """
        if channel is not None:
            link = Link(None, os.getpid(), channel)
            link.send(messages)
            return
        outbox = _outbox.get()
        if outbox is not None:
            outbox.add(messages, policy or self.policy)
            return
        self.publish_now(messages, policy)

    def publish_now(self, messages: Sequence[Prepared], policy: PublishPolicy | None = None) -> None:
        """Put the messages now; see `publish`."""
        policy = policy or self.policy
        end = None if policy.deadline_seconds is None else time.monotonic() + policy.deadline_seconds
        intervals = policy.intervals()
        while True:
            recoverable: tuple[type[BaseException], ...] = (OSError,)
            final: tuple[type[BaseException], ...] = ()
            try:
                remaining = None if end is None else max(0.0, end - time.monotonic())
                with self.pool.acquire(remaining) as link:
                    connection = link.connection
                    recoverable = (
                        *connection.recoverable_connection_errors,
                        *connection.recoverable_channel_errors,
                        OSError,
                    )
                    final = tuple(connection.connection_errors)
                    link.send(messages)
                return
            except Exception as exc:
                wanted = (*recoverable, *(policy.retry_errors or ()), errors.OperationalError)
                if not isinstance(exc, (*wanted, *final)):
                    raise
                if not isinstance(exc, wanted) or not self._again(intervals, end, policy, exc):
                    raise errors.OperationalError(
                        f"cannot send to the broker {self._address()}: {exc or type(exc).__name__}"
                    ) from exc

    def _again(
        self,
        intervals: Iterator[float],
        end: float | None,
        policy: PublishPolicy,
        exc: BaseException,
    ) -> bool:
        """Wait for the next try; False when the policy is spent."""
        interval = next(intervals, None)
        if interval is None or (end is not None and time.monotonic() + interval >= end):
            return False
        if policy.errback is not None:
            policy.errback(exc, interval)
        logger.info(
            "sending to the broker %s failed (%s); next try in %.1f s", self._address(), exc, interval
        )
        if interval:
            time.sleep(interval)
        return True

    def close(self) -> None:
        """Close the pooled links."""
        self.pool.close()
