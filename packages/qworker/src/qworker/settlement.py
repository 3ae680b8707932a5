"""Final states that no pool child can store: unknown, malformed, expired, revoked, lost and timed-out tasks.

Storing is a round trip to the result store and perhaps to the broker (errbacks, chords), which would block the
worker's loop. So it happens in one thread, as many at a time as are waiting, with one flush for all of them.
Messages are acknowledged afterwards, in the loop again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from attrs import frozen

from qcore.execution.aborted import record_failure
from qcore.execution.records import Job

logger = logging.getLogger(__name__)

# How long a fork waits for the thread to be between two batches: a lock held over a fork stays locked in the child.
FORK_WAIT_SECONDS = 5.0


@frozen
class Settlement:
    """One task that is over, and how."""

    job: Job
    state: str
    exception: BaseException
    traceback: str | None
    then: Callable[[], object] | None
    """Called in the loop when the state was stored, or cannot be."""


class Settler:
    """Stores final states in a thread.

    Args:
        app: The app.
        call_soon: Runs a callable in the worker's loop; safe to call from any thread.
    """

    def __init__(self, app: Any, call_soon: Callable[..., object]) -> None:
        self.app = app
        self.call_soon = call_soon
        self._waiting: deque[Settlement] = deque()
        self._wakeup = threading.Condition()
        self._busy = False
        self._owed = 0
        """Calls of `then` that wait for the loop."""
        self._working = threading.Lock()
        self._fork_locked = False
        _settlers.add(self)

    def settle(
        self,
        job: Job,
        state: str,
        exception: BaseException,
        traceback: str | None = None,
        then: Callable[[], object] | None = None,
    ) -> None:
        """Store `state` for the task of `job` soon, count it in its chord and call its errbacks; then call `then`."""
        with self._wakeup:
            self._waiting.append(Settlement(job, state, exception, traceback, then))
            if not self._busy:
                # The thread ends when nothing is left, so that pool children are seldom forked beside one.
                self._busy = True
                threading.Thread(target=self._run, name="q-settler", daemon=True).start()

    def join(self, timeout: float) -> bool:
        """Wait until everything is stored; False when `timeout` seconds passed before."""
        deadline = time.monotonic() + timeout
        with self._wakeup:
            while self._busy:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._wakeup.wait(left)
        return True

    @property
    def pending(self) -> bool:
        """True while something is not stored, or what follows was not called."""
        return self._busy or self._owed > 0

    def _run(self) -> None:
        while True:
            with self._wakeup:
                if not self._waiting:
                    self._busy = False
                    self._wakeup.notify_all()
                    return
                batch = list(self._waiting)
                self._waiting.clear()
            try:
                with self._working:
                    self._store(batch)
            finally:
                for settlement in batch:
                    if settlement.then is not None:
                        with self._wakeup:
                            self._owed += 1
                        self.call_soon(self._follow, settlement.then)

    def _follow(self, then: Callable[[], object]) -> None:
        with self._wakeup:
            self._owed -= 1
        then()

    def _store(self, batch: list[Settlement]) -> None:
        backends = {}
        for settlement in batch:
            try:
                record_failure(self.app, settlement.job, settlement.exception, settlement.state)
                task = self.app.tasks.get(settlement.job.name)
                backend = self.app.backend if task is None else task.backend
            except Exception:
                # The store or the broker failed, or a body cannot be read. The message is dealt with all the
                # same, or it would come back for ever.
                logger.exception(
                    "Cannot store the state %s of task %s[%s]; whoever waits for its result waits in vain.",
                    settlement.state,
                    settlement.job.name,
                    settlement.job.id,
                )
            else:
                backends[id(backend)] = backend
        for backend in backends.values():
            try:
                backend.flush()
            except Exception:
                logger.exception(
                    "Cannot store the final states of %d tasks; whoever waits for them waits in vain.",
                    len(batch),
                )

    # -- fork: nothing of the store may be locked by the thread meanwhile

    def _before_fork(self) -> None:
        self._fork_locked = self._working.acquire(timeout=FORK_WAIT_SECONDS)

    def _after_fork(self) -> None:
        if self._fork_locked:
            self._fork_locked = False
            self._working.release()


_settlers: WeakSet[Settler] = WeakSet()
_locked: list[Settler] = []


def _before_fork() -> None:
    _locked[:] = list(_settlers)
    for settler in _locked:
        settler._before_fork()


def _after_fork() -> None:
    for settler in _locked:
        settler._after_fork()
    _locked.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_settlers.clear)
