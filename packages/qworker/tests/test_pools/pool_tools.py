"""What the tests of the pools share: a runner of callables, a log of events, a driver."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qcore.errors import SoftTimeLimitExceeded, TimeLimitExceeded
from qworker.pools import limits
from qworker.pools.contract import Pool, PoolOptions, Work

PATIENCE_SECONDS = 20.0


class CallRunner:
    """The payload is a callable (inside the guard, as a task's body is) or a plain value."""

    def start(self) -> None: ...

    def run(self, payload: object) -> object:
        try:
            with limits.guard():
                if inspect.iscoroutinefunction(getattr(payload, "func", payload)):
                    return asyncio.run(limits.drive(payload()))  # type: ignore[operator]
                return payload() if callable(payload) else payload
        except (SoftTimeLimitExceeded, TimeLimitExceeded) as error:
            return f"{type(error).__name__}"

    async def arun(self, payload: object) -> object:
        try:
            with limits.guard():
                if not callable(payload):
                    return payload
                if inspect.iscoroutinefunction(getattr(payload, "func", payload)):
                    return await payload()
                return await asyncio.to_thread(payload)
        except (SoftTimeLimitExceeded, TimeLimitExceeded) as error:
            return f"{type(error).__name__}"

    def flush(self) -> None: ...

    def stop(self) -> None: ...


class Log:
    """Books every event by tag."""

    def __init__(self) -> None:
        self.accepted: dict[int, int] = {}
        self.started: dict[int, float] = {}
        self.done: dict[int, Any] = {}
        self.done_by: dict[int, int] = {}
        self.lost: dict[int, tuple[int, int | None, bool]] = {}
        self.soft: dict[int, float] = {}
        self.hard: dict[int, float] = {}
        self.finals: Counter[int] = Counter()
        self.after_the_end: list[int] = []
        self.fatal: list[str] = []
        self.at: dict[int, float] = defaultdict(float)

    def on_accepted(self, tag: int, pid: int, started: float) -> None:
        if tag in self.accepted or self.finals[tag]:
            self.after_the_end.append(tag)
        self.accepted[tag] = pid
        self.started[tag] = started

    def on_done(self, tag: int, result: object, pid: int) -> None:
        self.done[tag] = result
        self.done_by[tag] = pid
        self._final(tag)

    def on_lost(self, tag: int, pid: int, exitcode: int | None, started: bool) -> None:
        self.lost[tag] = (pid, exitcode, started)
        self._final(tag)

    def on_timeout(self, tag: int, soft: bool, limit: float) -> None:
        if soft:
            self.soft[tag] = limit
        else:
            self.hard[tag] = limit
            self._final(tag)

    def on_fatal(self, reason: str) -> None:
        self.fatal.append(reason)

    def _final(self, tag: int) -> None:
        self.finals[tag] += 1
        self.at[tag] = time.monotonic()


class Driver:
    """One pool with its log; turns the loop until something is true."""

    def __init__(self, pool: Pool, log: Log) -> None:
        self.pool = pool
        self.log = log
        self.tag = 0

    def submit(self, payload: object, kind: str = "job", **limits: float) -> int:
        self.tag += 1
        self.pool.submit(Work(self.tag, kind, payload, **limits))
        return self.tag

    def until(self, condition: Callable[[], bool], timeout: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s; {vars(self.log)}"[:3000]
            self.pool.poll(0.05)

    def run(self, *tags: int, timeout: float = PATIENCE_SECONDS) -> None:
        """Hand out, and wait for the end of these."""
        self.pool.flush()
        self.until(lambda: all(tag in self.log.finals for tag in tags), timeout)


@contextmanager
def running(
    pool_class: Callable[..., Pool],
    concurrency: int = 2,
    runner: Callable[[], Any] = CallRunner,
    **options: Any,
) -> Iterator[Driver]:
    log = Log()
    pool = pool_class(runner, concurrency, log, PoolOptions(**options))
    pool.start()
    try:
        yield Driver(pool, log)
    finally:
        pool.terminate()
    twice = [tag for tag, times in log.finals.items() if times != 1]
    assert not twice
    assert not log.after_the_end


def fast(seconds: float) -> Callable[[], None]:
    """Sleeps in small steps, so that an asynchronous exception arrives."""
    return functools.partial(nap, seconds)


def nap(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
    return "slept"


def touch(path: str, value: object = None) -> object:
    """Leave a line that shows the run, also of a process that dies right after."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{value}\n".encode())
    finally:
        os.close(descriptor)
    return value


def mark_forever(path: str) -> None:
    """Run until there is such a file."""
    deadline = time.monotonic() + 30
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)
