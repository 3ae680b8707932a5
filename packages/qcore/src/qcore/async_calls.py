"""Calls awaited at the same time are sent together: those that gather while a batch is under way are the next one.

Each event loop has one batch under way, in a worker thread: there the calls are made one after the other, which
encodes them and looks up their queues, and then the messages for each queue go out in one round trip. A single call
waits for nothing; a thousand share their round trips, and on RabbitMQ their confirmations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define

from qcore.producer import Outbox, Prepared, TaskProducer

MOST_TOGETHER = 1000
LARGE_BYTES = 1 << 20

_HARMLESS = frozenset({
    "compression", "countdown", "eta", "expires", "group_id", "group_index", "ignore_result", "link", "link_error",
    "parent_id", "priority", "queue", "root_id", "routing_key", "serializer", "shadow", "soft_time_limit", "task_id",
    "time_limit",
})  # fmt: skip
"""Options with which a call cannot make the messages fail that travel with it: no headers or properties that may be
impossible to encode, no exchange that may not exist, no policy of its own."""


@define(eq=False)
class Call:
    """One call that somebody awaits."""

    make: Callable[[], Any]
    context: Context
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell the one who awaits it, unless he has gone away."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class AsyncCalls:
    """The calls of one app from all event loops.

    Args:
        app: the app; asked for its settings and its producer at each call.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopCalls] = WeakKeyDictionary()

    async def send(self, make: Callable[[], Any], options: Any = ()) -> Any:
        """Make a call without blocking the event loop.

        Args:
            make: makes the call, as `Task.apply_async` does; called in a worker thread, in the caller's context.
            options: the call's options; with some of them it is sent on its own.

        Raises:
            OperationalError: the broker could not be reached; the calls for the same queue that were sent together
                fail together.
            Exception: what `make` raised.
        """
        if not _HARMLESS.issuperset(options) or self._app.conf.task_always_eager:
            return await asyncio.to_thread(make)
        loop = asyncio.get_running_loop()
        calls = self._loops.get(loop)
        if calls is None:
            calls = self._loops[loop] = _LoopCalls(loop, lambda: self._app.amqp.producer)
        return await calls.add(make)


class _LoopCalls:
    """The calls of one event loop; every method runs in it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, producer: Callable[[], TaskProducer]) -> None:
        self._loop = loop
        self._producer = producer
        self._waiting: list[Call] = []
        self._busy = False

    def add(self, make: Callable[[], Any]) -> asyncio.Future[Any]:
        call = Call(make, copy_context(), self._loop.create_future())
        self._waiting.append(call)
        if not self._busy:
            self._busy = True
            # In the next turn of the loop, so that all that are ready in this one travel together.
            self._loop.call_soon(self._start)
        return call.future

    def _start(self) -> None:
        calls, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        try:
            sending = self._loop.run_in_executor(None, send_together, self._producer, calls)
        except RuntimeError as exc:  # the loop is shutting down: nothing was sent
            self._end(calls, exc)
        else:
            sending.add_done_callback(lambda done: self._end(calls, done.exception()))

    def _end(self, calls: Sequence[Call], error: BaseException | None) -> None:
        for call in calls:
            call.error = call.error or error
            call.settle()
        if self._waiting:
            self._start()
        else:
            self._busy = False


def send_together(producer: Callable[[], TaskProducer], calls: Sequence[Call]) -> None:
    """Make the calls and put their messages, those for one queue in one round trip; each call notes how it went."""
    sender = producer()
    by_queue: dict[object, list[tuple[Call, list[Prepared]]]] = {}
    for call in calls:
        held = Outbox(sender)
        try:
            call.result = call.context.run(_hold, sender, held, call.make)
        except Exception as exc:  # noqa: BLE001 - the caller's mistake, or a hook's; nothing of it was sent
            call.error = exc
            continue
        if held.messages:
            by_queue.setdefault(_company(held.messages[0]), []).append((call, held.messages))
    for together in by_queue.values():
        try:
            sender.publish_now([message for _, messages in together for message in messages])
        except Exception as exc:  # noqa: BLE001 - brokers raise what they like; it is raised where the call is awaited
            for call in _concerned(exc, together):
                call.error = exc


def _hold(sender: TaskProducer, held: Outbox, make: Callable[[], Any]) -> Any:
    if sender.collecting():  # the caller's own `app.bulk()` sends it
        return make()
    with sender.collect_into(held):
        return make()


def _company(message: Prepared) -> object:
    """What messages must have in common to travel together: a queue that is wrong, or a message that the broker finds
    too large, fails alone.
    """
    if message.queue is None or len(message.body) > LARGE_BYTES:
        return message
    return message.queue.name


def _concerned(exc: Exception, together: Sequence[tuple[Call, list[Prepared]]]) -> list[Call]:
    """The calls that failed: those that the error names by the ids of their messages, else all."""
    words = set(" ".join(map(str, getattr(exc, "messages", ()))).split())
    named = [call for call, messages in together if any(m.headers.get("id") in words for m in messages)]
    return named or [call for call, _ in together]
