"""Runs jobs in a pool child, a thread or on an event loop, and keeps their results and follow-ups together.

`run` and `arun` never raise: what a job does wrong is its outcome. `flush` returns when everything that the jobs
so far stored and sent is out: a store or broker that is away is waited for, because the worker acknowledges a
job only after its flush.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from qcore import current, signals
from qcore.errors import NotRegistered
from qcore.execution.aborted import record_failure
from qcore.execution.execution import (
    Execution,
    Guard,
    acall,
    call,
    decode,
    enter,
    internal_error,
    leave,
    resolve,
    settle,
)
from qcore.execution.failure import Failure
from qcore.execution.records import Job, Outcome
from qcore.message import short_repr
from qcore.producer import Outbox

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


class TaskRunner:
    """Runs the jobs of one app.

    Args:
        app: finalized app.
        hostname: node name of the worker.
        guard: context manager factory around the body of a task: only inside is a soft time limit raised.
        aguard: the same around the body on an event loop.
        on_start: called in the child once it is set up (logging, process title).
    """

    def __init__(
        self,
        app: Any,
        hostname: str,
        *,
        guard: Guard = nullcontext,
        aguard: Guard = nullcontext,
        on_start: Callable[[], None] | None = None,
    ) -> None:
        self.app = app
        self.hostname = hostname
        self._guard = guard
        self._aguard = aguard
        self._on_start = on_start
        self._outbox: Outbox | None = None
        self._loops = threading.local()
        self._all_loops: list[asyncio.Runner] = []
        self._stopping = threading.Event()

    def start(self) -> None:
        """Set the process up: current app, fresh connections, signal `worker_process_init`."""
        self.app.after_fork()
        current.set_default_app(self.app)
        current.set_current_app(self.app)
        self.app.finalize()
        self._outbox = Outbox(self.app.amqp.producer)
        if self._on_start is not None:
            self._on_start()
        if signals.worker_process_init.receivers:
            signals.worker_process_init.send(sender=None)

    def run(self, payload: object) -> Outcome:
        """Run one job to its end."""
        run = self._begin(payload)
        if isinstance(run, Outcome):
            return run
        try:
            enter(run)
            call(run, self._guard, self._run_coroutine)
            return settle(run)
        except BaseException as exc:  # noqa: BLE001 - a hook or the store failed around the body; the job is over
            return internal_error(run, exc)
        finally:
            leave(run)

    async def arun(self, payload: object) -> Outcome:
        """Run one job on the running event loop."""
        run = self._begin(payload)
        if isinstance(run, Outcome):
            return run
        try:
            enter(run)
            await acall(run, self._aguard)
            return settle(run)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 - a hook or the store failed around the body; the job is over
            return internal_error(run, exc)
        finally:
            leave(run)

    def _begin(self, payload: object) -> Execution | Outcome:
        """The run with its request, or the outcome of a message that cannot be run."""
        job = payload if isinstance(payload, Job) else Job(*payload)  # type: ignore[misc]
        run = Execution(self.app, job, self._outbox)
        try:
            resolve(run)
            decode(run)
        except Exception as exc:  # noqa: BLE001 - whatever the decoder raises, the message is at fault
            failure = Failure.of(exc)
            try:
                record_failure(self.app, job, exc)
            except Exception:
                logger.exception("cannot record the failure of %s[%s]", job.name, job.id)
            internal = not isinstance(exc, NotRegistered)
            return Outcome(
                job.id,
                "failed",
                0.0,
                short_repr(exc),
                failure.traceback,
                exc_type=failure.path,
                internal=internal,
            )
        return run

    def _run_coroutine(self, coroutine: Any) -> Any:
        """Run the coroutine of an `async def` task on this thread's event loop, kept between tasks."""
        runner = getattr(self._loops, "runner", None)
        if runner is None:
            runner = self._loops.runner = asyncio.Runner()
            self._all_loops.append(runner)
        return runner.run(coroutine, context=contextvars.copy_context())

    def flush(self) -> None:
        """Send what the jobs so far set in motion, then what they stored; waits for a broker or store that is away."""
        outbox = self._outbox
        if outbox is not None and outbox.messages:
            self._until_done(outbox.flush, "the broker")
        backend = self.app.backend_if_used()
        if backend is not None:
            self._until_done(backend.flush, "the result store")

    def _until_done(self, action: Callable[[], None], where: str) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                action()
                return
            except Exception as exc:
                if self._stopping.is_set():
                    logger.error(
                        "%s is away while the worker stops: %s. The tasks will run again.", where, exc
                    )
                    raise
                logger.warning(
                    "%s is away: %s. Finished tasks wait with their results; next try in %.1f s",
                    where, exc, pause,
                )  # fmt: skip
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def stop(self) -> None:
        """Flush once more and close what this process opened."""
        self._stopping.set()
        try:
            self.flush()
        finally:
            while self._all_loops:  # one per thread; their threads are idle by now
                self._all_loops.pop().close()
            self._loops = threading.local()
            if signals.worker_process_shutdown.receivers:
                signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
