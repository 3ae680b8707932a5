"""What all pools share: the queue's door, the loop, the calls of the worker's handlers."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from threading import Thread, current_thread
from time import monotonic
from typing import ParamSpec, TypeVar

from .contract import EventHub, Pool, PoolEvents, PoolOptions, RunnerFactory, Work
from .errors import LimitUnsupported, PoolClosed
from .reactor import Reactor

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)


class Reports:
    """Calls the handlers of the worker; an error in one of them must not cost the pool its books."""

    def __init__(self, events: PoolEvents, call_soon: Callable[[Callable[[], None]], None]) -> None:
        self._events = events
        self._call_soon = call_soon

    def accepted(self, work: Work, pid: int, started: float) -> None:
        self._call(self._events.on_accepted, work.tag, pid, started)

    def done(self, work: Work, result: object, pid: int) -> None:
        self._call(self._events.on_done, work.tag, result, pid)

    def lost(self, work: Work, pid: int, exitcode: int | None, started: bool) -> None:
        self._call(self._events.on_lost, work.tag, pid, exitcode, started)

    def soft_timeout(self, work: Work) -> None:
        self._call(self._events.on_timeout, work.tag, True, work.soft_limit or 0.0)

    def hard_timeout(self, work: Work, limit: float) -> None:
        self._call(self._events.on_timeout, work.tag, False, limit)

    def fatal(self, reason: str) -> None:
        self._call(self._events.on_fatal, reason)

    def _call(self, handler: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            handler(*args, **kwargs)
        except Exception:  # the worker's code; the pool has done its part
            logger.critical(
                "A handler of the pool's events failed; its message may stay unanswered", exc_info=True
            )
        except BaseException as error:  # noqa: BLE001 - the worker is to stop: first the books are completed
            self._call_soon(partial(_raise, error))


def _raise(error: BaseException) -> None:
    raise error


class LoopPool(Pool):
    """A pool with a queue and a reactor; subclasses start the children and hand the queue out."""

    def __init__(
        self,
        runner_factory: RunnerFactory,
        concurrency: int,
        events: PoolEvents,
        options: PoolOptions | None = None,
    ) -> None:
        if concurrency < 0:
            raise ValueError(f"a pool's concurrency must not be negative, not {concurrency}")
        self.options = options or PoolOptions()
        self._refuse_unsupported()
        self._runner_factory = runner_factory
        self._concurrency = concurrency
        self._queue: deque[Work] = deque()
        self._closed = False
        self._finished = False
        self._thread: Thread | None = None
        self._flushing = False
        self._reactor = Reactor()
        self._reports = Reports(events, self._reactor.call_soon)

    def _refuse_unsupported(self) -> None:
        if self.capabilities.recycle:
            return
        for option in ("max_tasks_per_child", "max_memory_per_child_kib"):
            if getattr(self.options, option) is not None:
                raise LimitUnsupported(self.name, option, "use the prefork pool or leave the option out")

    # --- to be filled in --------------------------------------------------------------------------

    @abstractmethod
    def _open(self) -> None:
        """Start the children, in the loop's thread."""

    @abstractmethod
    def _dispatch(self) -> None:
        """Hand out the queue, in the loop's thread."""

    @abstractmethod
    def _idle(self) -> bool:
        """Whether nothing is queued or running."""

    @abstractmethod
    def _stop_children(self) -> bool:
        """Have the idle children end; True when all have. Called again until then."""

    # --- the loop ---------------------------------------------------------------------------------

    def start(self) -> None:
        if not self.options.own_thread:
            self._open()
            return
        self._thread = Thread(target=self._turn, name=f"{self.options.name}-pool", daemon=True)
        self._thread.start()

    def _turn(self) -> None:
        self._open()
        while not self._finished:
            try:
                self._reactor.run_once(None)
                self._check_finished()
            except BaseException:  # a handler's SystemExit cannot end the program from this thread
                logger.critical("The pool's thread goes on after an error", exc_info=True)
        self._reactor.close()

    def register_with_event_loop(self, hub: EventHub) -> None:
        if self.options.own_thread:
            raise ValueError("this pool turns in its own thread; leave own_thread out to use an event loop")
        self._reactor.attach(hub)

    def poll(self, timeout: float | None = None) -> None:
        self._reactor.run_once(timeout)
        self._check_finished()

    def _check_finished(self) -> None:
        if self._closed and not self._finished and self._idle():
            self._finished = self._stop_children()

    def _in_loop(self, function: Callable[[], R]) -> R:
        """Call it in the loop's thread, and wait."""
        thread = self._thread
        if thread is None or thread is current_thread() or not thread.is_alive():
            return function()
        future: Future[R] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                future.set_exception(error)

        self._reactor.call_soon(call)
        while True:
            done, _ = wait([future], timeout=0.5)
            if done:
                return future.result()
            if not thread.is_alive():  # it ended before it saw the call
                return function()

    # --- work -------------------------------------------------------------------------------------

    def submit(self, work: Work) -> None:
        if self._closed:
            raise PoolClosed(self.name)
        self._queue.append(work)

    def flush(self) -> None:
        if self._thread is None:
            self._dispatch()
        elif not self._flushing:
            self._flushing = True
            self._reactor.call_soon(self._flush_here)

    def _flush_here(self) -> None:
        self._flushing = False
        self._dispatch()

    def _drop_queued(self, tag: int) -> bool:
        """Take a work out of the queue and report it; False if it is not there."""
        for work in self._queue:
            if work.tag == tag:
                self._queue.remove(work)
                self._reports.lost(work, 0, None, started=False)
                return True
        return False

    def take_back(self) -> list[int]:
        return self._in_loop(self._empty_queue)

    def _empty_queue(self) -> list[int]:
        tags = [work.tag for work in self._queue]
        self._queue.clear()
        return tags

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        self._closed = True
        self.flush()

    def join(self, timeout: float | None = None) -> bool:
        deadline = None if timeout is None else monotonic() + timeout
        if not self._closed:
            self.close()
        if self._thread is not None:
            self._reactor.wake()
            self._thread.join(timeout)
            return not self._thread.is_alive()
        self._check_finished()
        while not self._finished:
            rest = None if deadline is None else deadline - monotonic()
            if rest is not None and rest <= 0:
                return False
            self.poll(rest)
        self._reactor.close()
        return True

    def grow(self, n: int = 1) -> None:
        raise LimitUnsupported(self.name, "a change of its size", "start the worker with another concurrency")

    def shrink(self, n: int = 1) -> None:
        raise LimitUnsupported(self.name, "a change of its size", "start the worker with another concurrency")

    def restart(self) -> None:
        raise LimitUnsupported(self.name, "a restart of its children", "restart the worker")

    @property
    def implementation(self) -> str:
        return f"{type(self).__module__}:{type(self).__name__}"
