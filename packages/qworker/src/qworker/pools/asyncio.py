"""The asyncio pool: many coroutines at once on one event loop, which has a thread of its own.

A limit is a cancellation that turns into the limit's exception on its way into the coroutine, so the user's
code can catch `SoftTimeLimitExceeded` where it awaits.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, CancelledError, Task
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Thread
from traceback import format_exc

from . import limits
from .contract import Capabilities, PoolEvents, PoolOptions, RunnerFactory, Work
from .coroutine import Exchanging
from .inprocess import STOP_SECONDS, InProcessPool, Running
from .interrupt import Interrupter


class TaskInterrupter(Interrupter):
    """Cancels an asyncio task; `exchange` turns the cancellation into the limit's exception."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._arriving: type[BaseException] | None = None
        self.task: Task[None] | None = None

    def _send(self, error: type[BaseException]) -> None:
        self._loop.call_soon_threadsafe(self._cancel, error)

    def _cancel(self, error: type[BaseException]) -> None:
        if self._raising and self.task is not None:
            self._arriving = error
            self.task.cancel()

    def _recall(self) -> None:
        self._arriving = None

    def exchange(self, cancelled: CancelledError) -> BaseException:
        error, self._arriving = self._arriving, None
        if error is None or self.task is None:
            return cancelled
        self._raising = False
        self.task.uncancel()
        return error(self._detail)


class Pool(InProcessPool):
    """Work as tasks of one event loop; plain functions run in its thread pool."""

    name = "asyncio"
    capabilities = Capabilities(soft_limit=True, hard_limit=True, terminate=True, resize=True)

    def __init__(
        self,
        runner_factory: RunnerFactory,
        concurrency: int,
        events: PoolEvents,
        options: PoolOptions | None = None,
    ) -> None:
        super().__init__(runner_factory, concurrency, events, options)
        self._loop = asyncio.new_event_loop()
        self._loop_thread = Thread(target=self._run_loop, name=f"{self.options.name}-asyncio", daemon=True)
        self._ready: Future[None] = Future()
        self._tasks: set[Task[None]] = set()

    # --- in the loop's thread ---------------------------------------------------------------------

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_default_executor(ThreadPoolExecutor(max(1, self._concurrency)))
        try:
            self._runner.start()
        except BaseException as error:  # noqa: BLE001 - raised by start()
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        try:
            self._loop.run_forever()
        finally:
            self._cancel_rest()
            self._loop.close()

    def _begin(self, jobs: list[Running]) -> None:
        for job in jobs:
            if job.over:
                continue
            assert isinstance(job.limiter, TaskInterrupter)
            context = copy_context()
            context.run(limits.current.set, job.limiter)
            task = self._loop.create_task(self._run_async(job, job.limiter), context=context)
            job.limiter.task = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_async(self, job: Running, interrupter: TaskInterrupter) -> None:
        self._began(job)
        try:
            result = await Exchanging(self._runner.arun(job.work.payload), interrupter)
        except BaseException:  # noqa: BLE001 - a runner must not raise; the job is reported as lost
            self._ended(job, None, format_exc())
        else:
            self._ended(job, result, None)

    def _cancel_rest(self) -> None:
        """Let what was given up end, as far as it does."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=STOP_SECONDS))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    # --- InProcessPool ----------------------------------------------------------------------------

    def _start_runner(self) -> None:
        self._loop_thread.start()
        self._ready.result()

    def _interrupter(self, work: Work) -> Interrupter:
        return TaskInterrupter(self._loop)

    def _launch(self, jobs: list[Running]) -> None:
        self._loop.call_soon_threadsafe(self._begin, jobs)

    def _abandoned(self, job: Running) -> None:
        """Nothing to do: places are counted, not kept."""

    def _stop_places(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.join(2 * STOP_SECONDS)
