"""Where time limits may strike: only while the user's code runs.

A pool opens a `Limiter` for the job that it is about to run. The runner brackets the call of the user's
function with `guard()`, and user code may hold a limit off for a critical stretch with `shield()`. The
exception of a limit is raised inside a guard and outside every shield, never while results are encoded,
stored or acknowledged.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol


class Limiter(Protocol):
    """The limits of the job that runs now."""

    def guard(self) -> AbstractContextManager[object]:
        """Brackets user code, also of a coroutine."""
        ...

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Wraps a coroutine that is run to its end on a loop of its own, so that a limit reaches it."""
        ...

    def shield(self) -> AbstractContextManager[object]:
        """Brackets what a limit must not interrupt."""
        ...


current: ContextVar[Limiter | None] = ContextVar("qworker.pools.limits", default=None)
"""The limiter of this thread, greenlet or asyncio task; set by pools only."""


def guard() -> AbstractContextManager[object]:
    """Mark user code: a soft limit is raised only inside, as `SoftTimeLimitExceeded`."""
    limiter = current.get()
    return nullcontext() if limiter is None else limiter.guard()


def drive(coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """Wrap a user's coroutine that is run by `asyncio.run` or the like inside a guard.

    A limit is then raised where the coroutine waits. Not needed in the asyncio pool.
    """
    limiter = current.get()
    return coroutine if limiter is None else limiter.drive(coroutine)


def shield() -> AbstractContextManager[object]:
    """Hold a limit off inside user code; one that passes meanwhile is raised at the end of the block."""
    limiter = current.get()
    return nullcontext() if limiter is None else limiter.shield()
