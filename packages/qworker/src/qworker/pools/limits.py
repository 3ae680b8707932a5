"""Where time limits may strike: only while the user's code runs.

A pool opens a `Limiter` for the job that it is about to run. The runner brackets the call of the user's
function with `guard()` (or awaits `aguard(coroutine)`), and user code may hold a limit off for a critical
stretch with `shield()`. An exception for a soft limit is raised inside a guard and outside every shield,
never while results are encoded, stored or acknowledged.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeVar

R = TypeVar("R")


class Limiter(Protocol):
    """The limits of the job that runs now."""

    def guard(self) -> AbstractContextManager[None]: ...

    def shield(self) -> AbstractContextManager[None]: ...

    async def aguard(self, coroutine: Coroutine[object, object, R]) -> R: ...


current: ContextVar[Limiter | None] = ContextVar("qworker.pools.limits", default=None)
"""The limiter of this thread, greenlet or asyncio task; set by pools only."""


def guard() -> AbstractContextManager[None]:
    """Mark user code: a soft limit is raised only inside, as `SoftTimeLimitExceeded`."""
    limiter = current.get()
    return nullcontext() if limiter is None else limiter.guard()


async def aguard(coroutine: Coroutine[object, object, R]) -> R:
    """Await the user's coroutine; a soft limit is raised only in it."""
    limiter = current.get()
    return await (coroutine if limiter is None else limiter.aguard(coroutine))


@contextmanager
def shield() -> Iterator[None]:
    """Hold a soft limit off inside user code; one that passes meanwhile is raised at the end of the block."""
    limiter = current.get()
    with nullcontext() if limiter is None else limiter.shield():
        yield
