"""Refuse what the broker cannot do, so that it is not ignored without a word.

The rule:

- A client is told at the call, by `UnsupportedByBroker`, before anything is sent; a worker at its start.
- What a worker sends because of a message that it has taken (a retry, the rest of a chain, callbacks, whatever a task
  calls) is sent all the same when it merely loses an effect (priority, punctuality), with one warning per queue: the
  work that has begun must not end on it. An exchange that would drop the message is refused there as well.
- What is received is never refused.
- RabbitMQ has priorities, but only in queues that were declared for them. That is one warning per queue: the message
  does its work, and the arguments of a queue that exists cannot be changed.

Everything is decided once per queue and kept; see `Gate.check` for what a call costs.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from qbrokers.capabilities import DECLARED, NO, Capabilities, capabilities
from qcore import connections, current
from qcore.errors import UnsupportedByBroker

logger = logging.getLogger(__name__)

_BETTER = "Redis, RabbitMQ or SQLite (sqlite:///file.db, which needs no server)"
_following: ContextVar[bool] = ContextVar("qcore_following", default=False)


@contextmanager
def following() -> Iterator[None]:
    """What is sent in this block follows from a message that a worker has taken, though no task runs."""
    token = _following.set(True)
    try:
        yield
    finally:
        _following.reset(token)


def can_broadcast(connection: Any) -> bool:
    """Whether remote control and events work on the broker of `connection`."""
    return capabilities(connection).broadcast


def need_broadcast(connection: Any, what: str) -> None:
    """Refuse `what` (remote control, events) on a broker that cannot broadcast.

    Raises:
        UnsupportedByBroker: it cannot.
    """
    if not can_broadcast(connection):
        raise UnsupportedByBroker(
            connections.describe(connection), f"cannot broadcast, which {what} needs", f"use {_BETTER} for it"
        )


class Gate:
    """What one broker lets pass.

    Args:
        can: what the broker can do.
        address: text naming the broker in errors, password masked.
    """

    def __init__(self, can: Capabilities, address: Callable[[], str]) -> None:
        self.can = can
        self._address = address
        self._passed: dict[str, Any] = {}
        self._said: set[tuple[str, str]] = set()

    @classmethod
    def of(cls, connection: Any) -> Gate:
        """The gate to the broker of a connection, which need not be open and is not kept."""
        reference = weakref.proxy(connection)
        return cls(capabilities(connection), lambda: connections.describe(reference))

    @cached_property
    def broker(self) -> str:
        """The broker's URL without the password."""
        return self._address()

    def check(self, queue: Any, exchange: Any, priority: int, eta: str | None) -> None:
        """Check one message before it is sent; four comparisons when it asks for nothing special.

        Args:
            queue: the kombu Queue that it goes to; None when the address was given by hand.
            exchange: option of the call: None, a name, or a kombu Exchange.
            priority: 0 asks for nothing.
            eta: ISO 8601 text of the earliest start.

        Raises:
            UnsupportedByBroker: the broker cannot do it, see the module's rule.
        """
        if queue is not None and self._passed.get(queue.name) is not queue:
            self.check_queue(queue)
        if exchange is not None and not isinstance(exchange, str):
            self._check_exchange(exchange)
        if priority:
            self._check_priority(queue, priority)
        if eta is not None and self.can.redelivery is not None:
            self.check_delay(seconds_until(eta))

    def check_queue(self, queue: Any) -> None:
        """Check the declaration of a queue, for sending or consuming.

        Raises:
            UnsupportedByBroker: exchange type or `x-max-priority` cannot be had.
        """
        for exchange in (queue.exchange, *(binding.exchange for binding in queue.bindings or ())):
            self._check_exchange(exchange, queue.name)
        limit = max_priority(queue)
        if limit and self.can.priorities == NO:
            self._refuse(
                ("max-priority", queue.name),
                self._error(
                    f"has no priorities, but the queue {queue.name!r} is declared with x-max-priority={limit}",
                    f"leave task_queue_max_priority, or max_priority of the queue, out, or use {_BETTER}",
                ),
            )
            return
        self._passed[queue.name] = queue

    def check_delay(self, seconds: float) -> None:
        """Check that a message may wait so long in a worker.

        Raises:
            UnsupportedByBroker: the broker would deliver it to others meanwhile.
        """
        error = self._held_too_long(seconds)
        if error is not None:
            self._refuse(("delay", ""), error)

    def note_held(self, seconds: float) -> None:
        """Warn, once, of a message that came and has to be held so long that the broker delivers it again."""
        error = self._held_too_long(seconds)
        if error is not None and self._is_news(("held", "")):
            logger.warning("%s. It is held all the same; this is said once.", error)

    # --- the parts -----------------------------------------------------------------------------

    def _check_exchange(self, exchange: Any, queue: str | None = None) -> None:
        kind = "direct" if exchange is None else exchange.type or "direct"
        if self.can.has_exchange_type(kind):
            return
        subject = f"the exchange {exchange.name!r}" + (f" of the queue {queue!r}" if queue else "")
        raise self._error(
            f"has no {kind} exchanges, and would drop what is sent to {subject}",
            f"make it one of {', '.join(sorted(self.can.exchange_types))}, or use {_broker_with(kind)}",
        )

    def _check_priority(self, queue: Any, priority: int) -> None:
        name = "" if queue is None else queue.name
        if self.can.priorities == NO:
            lack = f"has no priorities, so priority={priority} would have no effect"
            advice = "leave priority (of the call, the task, its route, or task_default_priority) out"
            self._refuse(("priority", name), self._error(lack, f"{advice}, or use {_BETTER}"))
        elif self.can.priorities == DECLARED and queue is not None and ("priority", name) not in self._said:
            problem = _undeclared(queue, priority)
            if problem is not None and self._is_news(("priority", name)):
                logger.warning(
                    "%s. Messages are sent to %s all the same; this is said once for the queue.",
                    problem,
                    self.broker,
                )

    def _held_too_long(self, seconds: float) -> UnsupportedByBroker | None:
        redelivery = self.can.redelivery
        if redelivery is None or self.can.delays or seconds <= redelivery.seconds:
            return None
        advice = "let something call the task later (beat, a retry)"
        if redelivery.option is not None:
            advice = (
                f"raise {redelivery.option} in broker_transport_options above the longest countdown or eta"
            )
        return self._error(
            f"delivers a message again that a worker has held for {redelivery.seconds:g} seconds, so a task "
            f"that is due in {seconds:.0f} seconds would run more than once",
            f"{advice}, or use {_BETTER}",
        )

    def _error(self, lack: str, advice: str) -> UnsupportedByBroker:
        return UnsupportedByBroker(self.broker, lack, advice)

    def _refuse(self, key: tuple[str, str], error: UnsupportedByBroker) -> None:
        """Raise in a client; in a worker, warn once."""
        if not _in_worker():
            raise error
        if self._is_news(key):
            logger.warning(
                "%s. It is sent all the same, as it follows from a task; this is said once.", error
            )

    def _is_news(self, key: tuple[str, str]) -> bool:
        news = key not in self._said
        self._said.add(key)
        return news


def max_priority(queue: Any) -> int | None:
    """The `x-max-priority` that a kombu Queue is declared with."""
    own: int | None = queue.max_priority
    return own if own is not None else (queue.queue_arguments or {}).get("x-max-priority")


def seconds_until(eta: str) -> float:
    """Seconds from now until the moment that ISO 8601 text with an offset names."""
    return (datetime.fromisoformat(eta) - datetime.now(UTC)).total_seconds()


def _undeclared(queue: Any, priority: int) -> str | None:
    """What RabbitMQ makes of a priority in a queue without `x-max-priority`; None when it is declared, or by others."""
    if queue.no_declare or max_priority(queue):
        return None
    kind = (queue.queue_arguments or {}).get("x-queue-type", "classic")
    if kind == "stream":
        return f"priority={priority} has no effect in the stream {queue.name!r}: leave priority out"
    advice = (
        "set task_queue_max_priority, or max_priority of the queue, and delete the queue once so that it can be "
        "declared anew, or leave priority out"
    )
    if kind == "quorum":
        return (
            f"priority={priority} has little effect in the quorum queue {queue.name!r}, declared without "
            "x-max-priority: RabbitMQ before 4.0 ignores it, 4.0 to 4.2 only tell 5 and more from less; from 4.3 on, "
            + advice
        )
    return f"priority={priority} has no effect in the queue {queue.name!r}, declared without x-max-priority: {advice}"


def _broker_with(kind: str) -> str:
    return "RabbitMQ" if kind not in ("direct", "topic", "fanout") else _BETTER


def _in_worker() -> bool:
    if _following.get():
        return True
    request = current.get_worker_request()
    return (
        request is not None
        and request.id is not None
        and not request.called_directly
        and not request.is_eager
    )
