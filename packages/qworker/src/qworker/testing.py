"""Embedded workers for tests: in a thread of this process, or in a process of its own.

```python
with start_worker(app) as worker:
    assert add.delay(2, 2).get(timeout=10) == 4
```
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qworker.worker import WorkController

logger = logging.getLogger(__name__)

START_SECONDS = 10.0
STOP_SECONDS = 10.0


class EmbeddedWorkerError(RuntimeError):
    """An embedded worker did not start or stop in time."""


class ThreadWorker(WorkController):
    """A worker in a thread of the test's process."""

    thread: threading.Thread | None = None

    def __init__(self, app: Any, **options: Any) -> None:
        self.ready = threading.Event()
        super().__init__(app, **options)
        self.ready_callbacks.append(lambda consumer: self.ready.set())

    def run(self) -> None:
        """Body of the thread."""
        try:
            self.start()
        except BaseException as exc:  # noqa: BLE001 - raised again in the test's thread
            self.error = exc
        finally:
            self.ready.set()

    def ensure_started(self, timeout: float = START_SECONDS) -> None:
        """Wait until messages are consumed.

        Raises:
            EmbeddedWorkerError: that took too long, or the worker has stopped.
        """
        if not self.ready.wait(timeout):
            raise EmbeddedWorkerError(f"the embedded worker did not start in {timeout} s")
        if self.error is not None:
            raise EmbeddedWorkerError(f"the embedded worker could not start: {self.error!r}") from self.error


@contextmanager
def start_worker(
    app: Any,
    *,
    concurrency: int = 1,
    pool: Any = "solo",
    start_timeout: float = START_SECONDS,
    shutdown_timeout: float = STOP_SECONDS,
    **options: Any,
) -> Iterator[ThreadWorker]:
    """Run a worker of `app` in a thread; it consumes when the block begins and is stopped when it ends.

    Args:
        app: The app.
        concurrency: Number of slots.
        pool: `solo` runs tasks in the worker's thread. `prefork` needs a store that other processes can reach.
        start_timeout: Seconds that the start may take.
        shutdown_timeout: Seconds that running tasks have to finish.
        options: As of `WorkController`; gossip, mingle and heartbeat are off unless asked for.

    Raises:
        EmbeddedWorkerError: it did not start or stop in time.
    """
    for name in ("without_gossip", "without_mingle", "without_heartbeat"):
        options.setdefault(name, True)
    worker = ThreadWorker(app, concurrency=concurrency, pool=pool, **options)
    worker.thread = threading.Thread(target=worker.run, name="q-worker", daemon=True)
    worker.thread.start()
    try:
        worker.ensure_started(start_timeout)
        yield worker
    finally:
        worker.request_stop()
        worker.thread.join(shutdown_timeout)
        if worker.thread.is_alive():
            running = ", ".join(request.humaninfo() for request in worker.state)
            worker.lifecycle.request_cold()
            worker.thread.join(STOP_SECONDS)
            raise EmbeddedWorkerError(
                f"the embedded worker did not stop in {shutdown_timeout} s; it runs {running or 'nothing'}"
            )


@contextmanager
def start_worker_process(
    make_app: Callable[[], Any],
    *,
    start_timeout: float = START_SECONDS,
    shutdown_timeout: float = STOP_SECONDS,
    **options: Any,
) -> Iterator[multiprocessing.Process]:
    """Run a worker in a process of its own; TERM ends it when the block does, KILL if it does not obey.

    Args:
        make_app: Makes the app, in that process; must be importable there.
        start_timeout, shutdown_timeout: Seconds.
        options: As of `Worker`.

    Raises:
        EmbeddedWorkerError: it did not start in time.
    """
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    # Not a daemon: those may not have children.
    process = context.Process(target=run_process, args=(make_app, ready, options), name="q-worker")
    process.start()
    try:
        deadline = time.monotonic() + start_timeout
        while not ready.wait(0.05):
            if not process.is_alive() or time.monotonic() > deadline:
                raise EmbeddedWorkerError(f"the worker process did not start (exit code {process.exitcode})")
        yield process  # type: ignore[misc]
    finally:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGTERM)
            process.join(shutdown_timeout)
            if process.is_alive():
                process.kill()
                process.join(STOP_SECONDS)


def run_process(make_app: Callable[[], Any], ready: Any, options: dict[str, Any]) -> None:
    """What the process runs."""
    from qworker.worker import Worker

    worker = Worker(make_app(), **options)
    worker.ready_callbacks.append(lambda consumer: ready.set())
    raise SystemExit(worker.start())
