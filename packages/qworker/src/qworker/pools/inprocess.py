"""What the pools without child processes share: running jobs, their limits, the way of an outcome."""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections import deque
from signal import SIGTERM
from time import monotonic
from traceback import format_exc
from typing import Any

from attrs import define

from qcore.errors import Terminated, TimeLimitExceeded

from .base import LoopPool
from .contract import PoolEvents, PoolOptions, Runner, RunnerFactory, Work
from .errors import LimitUnsupported
from .flusher import Flusher
from .interrupt import Interrupter
from .reactor import Timer

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0


@define(eq=False)
class Running:
    """A job that was handed out. The loop's thread alone changes it, apart from `started`."""

    work: Work
    limiter: Interrupter
    started: float | None = None
    accepted: bool = False
    over: bool = False
    """Its end was reported; what it still does counts for nothing."""
    timers: tuple[Timer, ...] = ()


class InProcessPool(LoopPool):
    """Jobs run in this process, in something that can be interrupted: a thread, a task, a greenlet.

    The way of a job: `_dispatch` (loop) makes it `Running` and hands it to `_launch`; whatever runs it calls
    `_began` and `_ended`; the flusher makes its results durable; `_deliver` brings it back to the loop.
    """

    def __init__(
        self,
        runner_factory: RunnerFactory,
        concurrency: int,
        events: PoolEvents,
        options: PoolOptions | None = None,
    ) -> None:
        super().__init__(runner_factory, concurrency, events, options)
        self._runner: Runner = runner_factory()
        self._flusher: Flusher[tuple[Running, Any, str | None]] = Flusher(self._runner, self._deliver)
        self._running: dict[int, Running] = {}
        self._news: deque[tuple[Running, bool, Any, str | None]] = deque()
        self._news_wanted = False

    # --- to be filled in --------------------------------------------------------------------------

    @abstractmethod
    def _start_runner(self) -> None:
        """Make ready whatever runs the jobs, and call `Runner.start`."""

    @abstractmethod
    def _launch(self, jobs: list[Running]) -> None:
        """Have these jobs run, from the loop's thread."""

    @abstractmethod
    def _interrupter(self, work: Work) -> Interrupter:
        """What can raise an exception in the job's code."""

    @abstractmethod
    def _abandoned(self, job: Running) -> None:
        """The job was given up: its place is free, although it may still run."""

    @abstractmethod
    def _stop_places(self) -> None:
        """Have the idle threads, or the loop, end."""

    # --- LoopPool ---------------------------------------------------------------------------------

    def _open(self) -> None:
        self._start_runner()
        self._flusher.start()

    def _dispatch(self) -> None:
        jobs = []
        while self._queue and len(self._running) < self._concurrency:
            work = self._queue.popleft()
            job = Running(work, self._interrupter(work))
            self._running[work.tag] = job
            jobs.append(job)
        if jobs:
            self._launch(jobs)

    def _idle(self) -> bool:
        return not self._queue and not self._running

    def _stop_children(self) -> bool:
        self._stop_places()
        self._flusher.stop()
        self._flusher.join(STOP_SECONDS)
        self._runner.stop()
        return True

    # --- where the job runs -----------------------------------------------------------------------

    def _began(self, job: Running) -> None:
        job.started = monotonic()
        self._post((job, False, None, None))

    def _run_job(self, job: Running) -> None:
        """Run one job to its end, in its thread or greenlet."""
        self._began(job)
        try:
            result = self._runner.run(job.work.payload)
        except BaseException:  # noqa: BLE001 - a runner must not raise; the job is reported as lost
            self._ended(job, None, format_exc())
        else:
            self._ended(job, result, None)

    def _ended(self, job: Running, result: object, crash: str | None) -> None:
        job.limiter.close()
        self._flusher.put((job, result, crash))

    def _deliver(self, items: list[tuple[Running, Any, str | None]], failed: str | None) -> None:
        """In the flusher's thread."""
        for job, result, crash in items:
            self._news.append((job, True, result, crash or failed))
        self._wake()

    def _post(self, news: tuple[Running, bool, Any, str | None]) -> None:
        self._news.append(news)
        self._wake()

    def _wake(self) -> None:
        # Several threads may see the flag down: then there is one call too many, which does nothing.
        if not self._news_wanted:
            self._news_wanted = True
            self._reactor.call_soon(self._read_news)

    # --- back in the loop -------------------------------------------------------------------------

    def _read_news(self) -> None:
        self._news_wanted = False
        for _ in range(len(self._news)):
            job, ended, result, crash = self._news.popleft()
            if job.over:
                continue
            if not job.accepted:
                self._accept(job)
            if ended:
                self._finish(job)
                self._report(job, result, crash)
        self._dispatch()
        self._check_finished()

    def _accept(self, job: Running) -> None:
        job.accepted = True
        started = job.started or monotonic()
        self._reports.accepted(job.work, os.getpid(), started)
        age = monotonic() - started
        timers = []
        if job.work.soft_limit is not None:
            timers.append(
                self._reactor.call_later(max(0, job.work.soft_limit - age), lambda: self._soft(job))
            )
        if job.work.hard_limit is not None:
            timers.append(
                self._reactor.call_later(max(0, job.work.hard_limit - age), lambda: self._hard(job))
            )
        job.timers = tuple(timers)

    def _report(self, job: Running, result: object, crash: str | None) -> None:
        if crash is None:
            self._reports.done(job.work, result, os.getpid())
        else:
            logger.critical("The runner failed in %s: %s", job.work.kind, crash)
            self._reports.lost(job.work, os.getpid(), None, True)

    def _finish(self, job: Running) -> None:
        job.over = True
        self._running.pop(job.work.tag, None)
        for timer in job.timers:
            timer.cancel()
        job.timers = ()

    def _soft(self, job: Running) -> None:
        if not job.over and job.limiter.interrupt(self.options.soft_limit_error, job.work.soft_limit):
            self._reports.soft_timeout(job.work)

    def _hard(self, job: Running) -> None:
        limit = job.work.hard_limit or 0.0
        if not job.over and self._give_up(job, TimeLimitExceeded, limit):
            self._reports.hard_timeout(job.work, limit)
            self._dispatch()
            self._check_finished()

    def _give_up(self, job: Running, error: type[BaseException], detail: object) -> bool:
        """End it as far as that is possible, and free its place at once; False if it has just ended."""
        if not job.limiter.interrupt(error, detail, finally_=True):
            return False
        self._finish(job)
        self._abandoned(job)
        return True

    # --- commands ---------------------------------------------------------------------------------

    def terminate_job(self, tag: int, signal: int = SIGTERM) -> bool:
        return self._in_loop(lambda: self._terminate_job(tag, signal))

    def _terminate_job(self, tag: int, signum: int) -> bool:
        if self._drop_queued(tag):
            return True
        job = self._running.get(tag)
        if job is None:
            return False
        if not self.capabilities.terminate:
            raise LimitUnsupported(self.name, "the end of a running job", "use the prefork pool")
        if self._give_up(job, Terminated, signum):
            self._reports.lost(job.work, os.getpid(), -signum, True)
            self._dispatch()
            self._check_finished()
        return True

    def grow(self, n: int = 1) -> None:
        self._in_loop(lambda: self._resize(self._concurrency + n))

    def shrink(self, n: int = 1) -> None:
        if n > self._concurrency:
            raise ValueError(f"the pool runs {self._concurrency} at a time; it cannot run {n} fewer")
        self._in_loop(lambda: self._resize(self._concurrency - n))

    def _resize(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._dispatch()

    def terminate(self) -> None:
        self._in_loop(self._terminate)

    def _terminate(self) -> None:
        if self._finished:
            self._reactor.close()
            return
        self._closed = True
        while self._queue:
            self._reports.lost(self._queue.popleft(), 0, None, started=False)
        for job in list(self._running.values()):
            if not self._give_up(job, Terminated, int(SIGTERM)):
                self._finish(job)
            self._reports.lost(job.work, os.getpid(), None, job.started is not None)
        self._check_finished()
        if self._thread is None:
            self._reactor.close()

    @property
    def num_processes(self) -> int:
        return self._concurrency

    @property
    def free_slots(self) -> int:
        return max(0, self._concurrency - len(self._running) - len(self._queue))

    def info(self) -> dict[str, object]:
        return {
            "implementation": self.implementation,
            "max-concurrency": self._concurrency,
            "processes": [os.getpid()],
            "running": len(self._running),
            "put-guarded-by-semaphore": False,
        }
