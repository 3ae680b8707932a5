"""The process at the other end of the socket: run jobs, send outcomes when there is nothing to read.

A child is forked with its end of a socket pair and its cell. It ends when it reads STOP, when the socket is
closed (the parent is gone; the jobs at hand are finished and flushed first), or when it is killed.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals
from threading import Event, Lock, Thread
from time import monotonic
from traceback import format_exc
from typing import Any

from attrs import frozen

from . import limits
from .alarm import AlarmLimiter
from .cell import FINISHED, RECALL, RUNNING, SINCE, SOFT, STARTED, Cell
from .contract import Runner, RunnerFactory
from .frames import FAILED, OUTCOMES, READY, STOP, Frame, FrameReader, encode
from .process_setup import prepare_process, resident_kib

FLUSH_SECONDS = 0.005
"""Outcomes are not held back longer, between two jobs."""
LINGER_SECONDS = 0.03
"""Outcomes are not held back much longer by a job that turns out long."""
START_FAILED = 70
"""Exit code of a child whose runner did not start (EX_SOFTWARE)."""


@frozen(kw_only=True)
class ChildSetup:
    """What the parent gives to a child by forking it."""

    socket: socket.socket
    cell: Cell
    runner_factory: RunnerFactory
    soft_limit_error: type[BaseException]
    title: str
    index: int
    measure_memory: bool
    parent_pid: int
    parent_death_signal: int | None
    signal_mask: set[int]
    """The parent blocks all signals around the fork; this is what the child restores."""
    close_inherited: Callable[[], None]
    """Closes what belongs to the parent and to the child's siblings."""


def child_main(setup: ChildSetup) -> None:
    """Body of the child process."""
    setup.close_inherited()
    prepare_process(setup.title, setup.index, setup.parent_pid, setup.parent_death_signal)
    pthread_sigmask(SIG_SETMASK, setup.signal_mask)
    try:
        runner = setup.runner_factory()
        runner.start()
    except BaseException:  # noqa: BLE001 - the application's code; the parent logs it and tries again later
        setup.socket.sendall(encode([FAILED, format_exc()]))
        raise SystemExit(START_FAILED) from None
    loop = ChildLoop(setup, runner)
    try:
        setup.socket.sendall(encode([READY]))
        loop.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    finally:
        runner.stop()


class ChildLoop:
    """Runs the jobs of one child in its main thread."""

    def __init__(self, setup: ChildSetup, runner: Runner) -> None:
        self._socket = setup.socket
        self._cell = setup.cell
        self._runner = runner
        self._measure_memory = setup.measure_memory
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()
        self._pid = os.getpid()
        self._outcomes: deque[tuple[Any, ...]] = deque()
        self._skipped: list[tuple[int, int]] = []
        self._interrupted: deque[int] = deque()
        self._flushed_at = 0.0
        self._flush_lock = Lock()
        self._lingering = Lingering(self._outcomes, self.flush)
        self._limiter = AlarmLimiter(setup.soft_limit_error, self._on_soft_limit)
        limits.current.set(self._limiter)

    def run(self) -> None:
        while True:
            if not self._frames and not self._receive(wait=False):
                self.flush()
                if not self._receive(wait=True):
                    return
                self._flushed_at = monotonic()
            if not self._frames:
                continue
            frame = self._frames.popleft()
            if frame[0] == STOP:
                self.flush()
                return
            self._run_frame(frame[1], frame[2], frame[3])

    def _receive(self, wait: bool) -> bool:
        """Read what has come; False if nothing has, or at the end of the stream."""
        try:
            data = self._socket.recv(262144, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        self._frames.extend(self._reader.feed(data))
        return bool(data)

    def _run_frame(
        self, first: int, payloads: Sequence[Any], soft_limits: Sequence[float | None] | None
    ) -> None:
        """Run the jobs of one frame.

        This is the hot path (`tools/bench/pool.py`), hence one long function. The order of the stores to the
        cell is the child's half of the recall protocol, see `cell`.
        """
        ints, floats = self._cell.ints, self._cell.floats
        run, outcomes = self._runner.run, self._outcomes
        many = len(payloads) > 1
        if many:
            self._lingering.begin()
        number = first
        for payload in payloads:
            ints[STARTED] = number
            if number >= ints[RECALL]:
                self._skipped.append((number, first + len(payloads)))
                break
            floats[SINCE] = started = monotonic()
            ints[RUNNING] = number
            try:
                if soft_limits is None or (limit := soft_limits[number - first]) is None:
                    result = run(payload)
                else:
                    result = self._run_limited(payload, limit)
            except BaseException:  # noqa: BLE001 - a runner must not raise; the job is reported as lost
                ended = monotonic()
                outcomes.append((number, None, started, ended - started, format_exc()))
            else:
                ended = monotonic()
                outcomes.append((number, result, started, ended - started))
            ints[FINISHED] = number
            number += 1
            if ended - self._flushed_at >= FLUSH_SECONDS:
                self.flush()
        if many:
            self._lingering.end()

    def _run_limited(self, payload: object, limit: float) -> object:
        self._limiter.open(limit)
        try:
            return self._runner.run(payload)
        finally:
            self._limiter.close()

    def _on_soft_limit(self) -> None:
        number = self._cell.ints[RUNNING]
        self._cell.ints[SOFT] = number
        self._interrupted.append(number)

    def flush(self) -> None:
        """Make results durable, then tell the parent; also called by the lingering thread."""
        with self._flush_lock:
            outcomes, skipped = self._outcomes, self._skipped
            if not outcomes and not skipped:
                return
            if os.getpid() != self._pid:  # the user's code forked and came back here: not our process
                os._exit(1)
            entries = [outcomes.popleft() for _ in range(len(outcomes))]
            skips = [skipped.pop() for _ in range(len(skipped))]
            if entries:
                try:
                    self._runner.flush()
                except Exception:  # noqa: BLE001 - the results are not stored, so the jobs are not done
                    crash = format_exc()
                    entries = [(*entry[:4], crash) for entry in entries]
            soft = [self._interrupted.popleft() for _ in range(len(self._interrupted))]
            self._socket.sendall(self._encode(entries, skips, soft))
            self._flushed_at = monotonic()

    def _encode(self, entries: list[tuple[Any, ...]], skips: list[tuple[int, int]], soft: list[int]) -> bytes:
        memory = resident_kib() if self._measure_memory else 0
        try:
            return encode([OUTCOMES, entries, skips, soft, memory])
        except Exception:  # noqa: BLE001 - some result cannot be pickled: find out which
            return encode([OUTCOMES, [_plain(entry) for entry in entries], skips, soft, memory])


def _plain(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        encode([entry])
    except Exception:  # noqa: BLE001 - the parent reports the job as lost, with this text
        return (entry[0], None, entry[2], entry[3], format_exc())
    return entry


class Lingering:
    """A thread that flushes finished outcomes while a later job of the same frame runs long.

    It exists only while frames of several jobs come in, and never takes a signal from the main thread.
    """

    def __init__(self, outcomes: deque[tuple[Any, ...]], flush: Callable[[], None]) -> None:
        self._outcomes = outcomes
        self._flush = flush
        self._busy = Event()
        self._idle = Event()
        self._lock = Lock()
        self._thread: Thread | None = None

    def begin(self) -> None:
        self._idle.clear()
        self._busy.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = self._start()

    def end(self) -> None:
        self._busy.clear()
        self._idle.set()

    def _start(self) -> Thread:
        thread = Thread(target=self._run, name="flush", daemon=True)
        mask = pthread_sigmask(SIG_BLOCK, valid_signals())
        try:
            thread.start()
        finally:
            pthread_sigmask(SIG_SETMASK, mask)
        return thread

    def _run(self) -> None:
        while self._wait_for_frames():
            oldest: object = None
            while self._busy.is_set() and not self._idle.wait(LINGER_SECONDS):
                first = next(iter(self._outcomes), None)
                if first is not None and first is oldest:
                    self._flush()
                oldest = first

    def _wait_for_frames(self) -> bool:
        if self._busy.wait(1.0):
            return True
        with self._lock:
            if self._busy.is_set():
                return True
            self._thread = None
            return False
