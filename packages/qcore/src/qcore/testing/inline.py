"""A worker in a thread of this process: takes task messages and runs them one by one, for tests of workflows.

It has no pool, no limits, no events and no remote control; `qworker.testing` has a real one. It needs no package
but this.
"""

from __future__ import annotations

import builtins
import threading
import time
from types import TracebackType
from typing import Any, Self

from qcore.edge import kombu
from qcore.execution.records import Job, Outcome
from qcore.execution.runner import TaskRunner


class InlineWorker:
    """Runs the tasks of `app` from the broker's queues until the block ends.

    Args:
        app: the app; its broker must be reachable from this process, such as `memory://`.
        queues: names; default the default queue.
        flush_every: jobs between flushes; more than one shows whether batches keep their promises.
    """

    def __init__(self, app: Any, queues: tuple[str, ...] = (), flush_every: int = 1) -> None:
        self.app = app
        self.outcomes: list[Outcome] = []
        self._queues = queues or (app.conf.task_default_queue,)
        self._flush_every = flush_every
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inline-worker", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self.app.finalize()
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(30)
        if self._error is not None and exc is None:
            raise self._error

    def _run(self) -> None:
        runner = TaskRunner(self.app, "inline@localhost")
        runner.start()
        taken: list[Any] = []
        try:
            with self.app.connection_for_read() as connection:
                channel = connection.default_channel
                if hasattr(connection.transport, "polling_interval"):
                    connection.transport.polling_interval = 0.001  # seconds; tests take many short steps
                consumer = kombu().Consumer(
                    channel,
                    queues=[self.app.amqp.queues[name] for name in self._queues],
                    on_message=taken.append,
                    accept=None,
                )
                with consumer:
                    self._ready.set()
                    while not self._stopping.is_set():
                        self._drain(connection)
                        self._work(runner, taken)
        except BaseException as exc:
            self._error = exc
            raise
        finally:
            self._ready.set()
            runner.stop()

    def _drain(self, connection: Any) -> None:
        try:
            connection.drain_events(timeout=0.02)
        except builtins.TimeoutError:
            return

    def _work(self, runner: TaskRunner, taken: list[Any]) -> None:
        done = []
        while taken:
            message = taken.pop(0)
            eta = message.headers.get("eta")
            if eta and _seconds_until(eta) > 0:
                threading.Timer(_seconds_until(eta), taken.append, (message,)).start()
                continue
            self.outcomes.append(runner.run(_job(message)))
            done.append(message)
            if len(done) % self._flush_every == 0:
                runner.flush()
        if done:
            runner.flush()
            for message in done:
                message.ack()


def _seconds_until(eta: str) -> float:
    from qcore.times import make_aware, parse_iso8601, timestamp

    return timestamp(make_aware(parse_iso8601(eta))) - time.time()


def _job(message: Any) -> Job:
    properties = message.properties
    info = dict(message.delivery_info)
    return Job(
        id=message.headers["id"],
        name=message.headers["task"],
        headers=dict(message.headers),
        body=message.body if isinstance(message.body, bytes) else message.body.encode(),
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        properties={name: properties.get(name) for name in ("correlation_id", "reply_to", "priority")},
        delivery_info={**info, "redelivered": info.get("redelivered", False)},
        hostname="inline@localhost",
        received=time.time(),
    )
