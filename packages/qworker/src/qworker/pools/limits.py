"""Where time limits may strike: only while the user's code runs.

A pool opens a `Limiter` for the job that it is about to run. The runner brackets the call of the user's
function with `guard()`, and user code may hold a limit off for a critical stretch with `shield()`. The
exception of a limit is raised inside a guard and outside every shield, never while results are encoded,
stored or acknowledged.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol


class Limiter(Protocol):
    """The limits of the job that runs now."""

    def guard(self) -> AbstractContextManager[object]:
        """Brackets user code, also of a coroutine."""
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


def shield() -> AbstractContextManager[object]:
    """Hold a limit off inside user code; one that passes meanwhile is raised at the end of the block."""
    limiter = current.get()
    return nullcontext() if limiter is None else limiter.shield()
