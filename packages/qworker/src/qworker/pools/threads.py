"""The threads pool: work runs in threads of this process.

A soft limit is an asynchronous exception, which arrives when the thread next runs Python code. A thread
cannot be killed: at a hard limit its job is given up and reported, a new thread takes its place, and the old
one ends with its job.
"""

from __future__ import annotations

import ctypes
from collections.abc import Coroutine
from queue import SimpleQueue
from threading import Thread, get_ident
from time import monotonic
from typing import Any

from . import limits
from .contract import Capabilities, PoolEvents, PoolOptions, RunnerFactory, Work
from .coroutine import CoroutineDriver
from .inprocess import STOP_SECONDS, InProcessPool, Running
from .interrupt import Interrupter

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in_thread.argtypes = (ctypes.c_ulong, ctypes.py_object)


class ThreadInterrupter(Interrupter):
    """Raises in the thread that entered the guard."""

    def __init__(self) -> None:
        super().__init__()
        self._ident = 0
        self._driver = CoroutineDriver()

    def __enter__(self) -> None:
        self._ident = get_ident()
        super().__enter__()

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        return self._driver.drive(coroutine)

    def _send(self, error: type[BaseException]) -> None:
        # A thread whose event loop waits would not run Python code for long.
        if not self._driver.throw(error(self._detail)):
            _raise_in_thread(self._ident, error)

    def _recall(self) -> None:
        _raise_in_thread(self._ident, ctypes.py_object())


class WorkerThread(Thread):
    """Runs one job after the other, until it is given up with one, or finds None in the queue."""

    def __init__(self, pool: Pool, jobs: SimpleQueue[Running | None]) -> None:
        super().__init__(name=f"{pool.options.name}-worker", daemon=True)
        self._pool = pool
        self._jobs = jobs
        self.job: Running | None = None
        self.given_up = False

    def run(self) -> None:
        while not self.given_up and (job := self._jobs.get()) is not None:
            if job.over:
                continue
            self.job = job
            limits.current.set(job.limiter)
            self._pool._run_job(job)
            self.job = None


class Pool(InProcessPool):
    """Work in threads; they are started as they are needed and kept."""

    name = "threads"
    capabilities = Capabilities(soft_limit=True, hard_limit=True, terminate=True, resize=True)

    def __init__(
        self,
        runner_factory: RunnerFactory,
        concurrency: int,
        events: PoolEvents,
        options: PoolOptions | None = None,
    ) -> None:
        super().__init__(runner_factory, concurrency, events, options)
        self._jobs: SimpleQueue[Running | None] = SimpleQueue()
        self._threads: set[WorkerThread] = set()

    def _start_runner(self) -> None:
        self._runner.start()

    def _interrupter(self, work: Work) -> Interrupter:
        return ThreadInterrupter()

    def _launch(self, jobs: list[Running]) -> None:
        while len(self._threads) < len(self._running):
            thread = WorkerThread(self, self._jobs)
            self._threads.add(thread)
            thread.start()
        for job in jobs:
            self._jobs.put(job)

    def _abandoned(self, job: Running) -> None:
        for thread in self._threads:
            if thread.job is job:
                thread.given_up = True
                self._threads.discard(thread)
                return

    def _stop_places(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        deadline = monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
