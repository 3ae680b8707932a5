"""The solo pool: work runs in the loop's own thread, one job after the other.

Nothing else happens meanwhile: no heartbeat, no remote control. A soft limit needs the main thread; a hard
limit cannot be enforced.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from signal import SIGTERM
from time import monotonic
from traceback import format_exc

from . import limits
from .alarm import AlarmLimiter
from .base import LoopPool
from .contract import Capabilities, PoolEvents, PoolOptions, RunnerFactory, Work
from .errors import LimitUnsupported

logger = logging.getLogger(__name__)

TURN_SECONDS = 0.02
"""How long jobs run before the loop gets a turn, and outcomes are reported."""


class Pool(LoopPool):
    """Work in place."""

    name = "solo"
    capabilities = Capabilities(soft_limit=True)

    def __init__(
        self,
        runner_factory: RunnerFactory,
        concurrency: int,
        events: PoolEvents,
        options: PoolOptions | None = None,
    ) -> None:
        super().__init__(runner_factory, concurrency, events, options)
        self._runner = runner_factory()
        self._running: Work | None = None
        self._turning = False
        self._limiter: AlarmLimiter | None = None
        self._warned = False

    def _open(self) -> None:
        self._runner.start()
        if threading.current_thread() is threading.main_thread():
            self._limiter = AlarmLimiter(self.options.soft_limit_error, self._on_soft_limit)

    def _dispatch(self) -> None:
        """Run jobs for one turn; the rest follows when the loop comes round."""
        if self._turning:  # a handler of an outcome called flush()
            return
        self._turning = True
        done: list[tuple[Work, object, str | None]] = []
        turn_ends = monotonic() + TURN_SECONDS
        try:
            while self._queue and monotonic() < turn_ends:
                work = self._queue.popleft()
                done.append((work, *self._run(work)))
            self._report(done)
        finally:
            self._turning = False
        if self._queue:
            self._reactor.call_soon(self._dispatch)

    def _run(self, work: Work) -> tuple[object, str | None]:
        """The result, or the traceback of a runner that raised."""
        self._running = work
        self._reports.accepted(work, os.getpid(), monotonic())
        token = limits.current.set(self._limiter)
        try:
            self._open_limits(work)
            return self._runner.run(work.payload), None
        except Exception:  # noqa: BLE001 - a runner must not raise; the job is reported as lost
            return None, format_exc()
        finally:
            if self._limiter is not None:
                self._limiter.close()
            limits.current.reset(token)
            self._running = None

    def _open_limits(self, work: Work) -> None:
        if work.soft_limit is not None and self._limiter is not None:
            self._limiter.open(work.soft_limit)
        elif (work.soft_limit is not None or work.hard_limit is not None) and not self._warned:
            self._warned = True
            logger.warning(
                "The solo pool cannot enforce the time limits of %s; it runs without. Use the prefork pool",
                work.kind,
            )

    def _on_soft_limit(self) -> None:
        if self._running is not None:
            self._reports.soft_timeout(self._running)

    def _report(self, done: list[tuple[Work, object, str | None]]) -> None:
        if not done:
            return
        failed: str | None = None
        try:
            self._runner.flush()
        except Exception:  # noqa: BLE001 - the results are not stored, so the jobs are not done
            failed = format_exc()
        for work, result, crash in done:
            crash = crash or failed
            if crash is None:
                self._reports.done(work, result, os.getpid())
            else:
                logger.critical("The runner failed in %s: %s", work.kind, crash)
                self._reports.lost(work, os.getpid(), None, True)

    def _idle(self) -> bool:
        return not self._queue and not self._turning

    def _stop_children(self) -> bool:
        self._runner.stop()
        return True

    def terminate_job(self, tag: int, signal: int = SIGTERM) -> bool:
        if self._in_loop(lambda: self._drop_queued(tag)):
            return True
        if self._running is not None and self._running.tag == tag:
            raise LimitUnsupported(self.name, "the end of a running job", "use the prefork pool")
        return False

    def terminate(self) -> None:
        self._closed = True
        while self._queue:
            self._reports.lost(self._queue.popleft(), 0, None, started=False)
        self._check_finished()
        if self._thread is None:
            self._reactor.close()
        else:
            self._reactor.wake()

    @property
    def num_processes(self) -> int:
        return 1

    @property
    def free_slots(self) -> int:
        return max(0, 1 - len(self._queue) - self._turning)

    def info(self) -> Mapping[str, object]:
        return {
            "implementation": self.implementation,
            "max-concurrency": 1,
            "processes": [os.getpid()],
            "max-tasks-per-child": None,
            "put-guarded-by-semaphore": True,
            "timeouts": (),
        }
