"""Limits inside coroutines: a cancellation that turns into the limit's exception on its way in.

Nothing can raise a chosen exception in a coroutine that waits, except a cancellation of its task. So the task is
cancelled, and an awaitable around the coroutine exchanges the `CancelledError` for what was meant.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, CancelledError, Task
from collections.abc import Coroutine, Generator
from typing import Any, Protocol


class Exchange(Protocol):
    """Knows which cancellations are limits."""

    def exchange(self, cancelled: CancelledError) -> BaseException:
        """What the coroutine gets in place of this cancellation."""
        ...


class Exchanging:
    """Awaits a coroutine, and exchanges cancellations on their way in."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], exchange: Exchange) -> None:
        self._coroutine = coroutine
        self._exchange = exchange

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        error: BaseException | None = None
        value: object = None
        while True:
            try:
                awaited = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            try:
                value = yield awaited
                error = None
            except GeneratorExit:
                coroutine.close()
                raise
            except CancelledError as cancelled:
                error = self._exchange.exchange(cancelled)
            except BaseException as other:  # noqa: BLE001 - passed on to where it belongs
                error = other


class CoroutineDriver:
    """Runs one coroutine in the current task, into which `throw` can raise from a signal handler or a thread."""

    def __init__(self) -> None:
        self._task: Task[Any] | None = None
        self._loop: AbstractEventLoop | None = None
        self._arriving: BaseException | None = None

    async def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        try:
            return await Exchanging(coroutine, self)
        finally:
            self._task = self._loop = None

    def throw(self, error: BaseException) -> bool:
        """Raise `error` where the coroutine waits; False if none is being driven."""
        loop, task = self._loop, self._task
        if loop is None or task is None:
            return False
        loop.call_soon_threadsafe(self._cancel, task, error)
        return True

    def _cancel(self, task: Task[Any], error: BaseException) -> None:
        if task is self._task:
            self._arriving = error
            task.cancel()

    def exchange(self, cancelled: CancelledError) -> BaseException:
        error, self._arriving = self._arriving, None
        if error is None or self._task is None:
            return cancelled
        self._task.uncancel()
        return error
