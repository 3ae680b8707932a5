"""The parent's side of one child process: its socket, its cell, the jobs it was given."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import Any

from attrs import define, field
from billiard import get_context

from .cell import NEVER, RECALL, Cell
from .child import ChildSetup, child_main
from .contract import PoolOptions, RunnerFactory, Work
from .frames import Frame, FrameReader
from .reactor import Reactor

_READ_BYTES = 262144
_READS_PER_WAKE = 8


class State(Enum):
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # gets nothing more; ends when it has finished what it has
    STOPPING = "stopping"  # was told to stop
    DEAD = "dead"


@define(eq=False)
class Child:
    """One child process, as the parent sees it."""

    index: int
    pid: int
    process: Any
    socket: socket.socket
    death_fd: int
    """Readable when the process has ended: a pidfd, or the sentinel of its `Process`."""
    has_pidfd: bool
    cell: Cell
    state: State = State.STARTING
    in_flight: dict[int, Work] = field(factory=dict)
    """By number: sent, and neither reported nor taken back."""
    sent: int = 0
    """The last number that was given out."""
    reported: int = 0
    """How many numbers have come back."""
    expected_seconds: float = 0.0
    """What the jobs in flight will probably take."""
    recalled_at: float | None = None
    """When the pending recall was written (monotonic seconds)."""
    settled: bool = False
    accepted: int = 0
    """The last number that was announced as started."""
    soft_reported: int = 0
    timed_out: tuple[int, float] | None = None
    """Number and hard limit of the job for which the child is being killed."""
    doomed: dict[int, int] = field(factory=dict)
    """Signal by number of the jobs that `terminate_job` is to end."""
    failure: str | None = None
    """Why it did not start."""
    _taken_back: int = 0
    _reader: FrameReader = field(factory=FrameReader)
    _unsent: bytearray = field(factory=bytearray)
    _write_fd: int | None = None

    @property
    def available(self) -> bool:
        """Whether it may be given jobs."""
        return self.state is State.READY and self.recalled_at is None

    @property
    def assigned(self) -> int:
        """How many jobs it has run or will run."""
        return self.sent - self._taken_back

    def give(self, works: list[Work], expected_seconds: float) -> None:
        """Enter jobs into the books, numbered in this order."""
        number = self.sent
        for work in works:
            number += 1
            self.in_flight[number] = work
        self.sent = number
        self.expected_seconds += expected_seconds

    def take_back(self, first: int, end: int) -> list[Work]:
        """Strike jobs `first` to `end` (without it) from the books: this child does not run them."""
        taken = [self.in_flight.pop(number) for number in range(first, end) if number in self.in_flight]
        self._taken_back += len(taken)
        return taken

    def send(self, data: bytes, reactor: Reactor) -> None:
        """Write without blocking; what does not fit follows when the socket takes more."""
        if self._unsent:
            self._unsent += data
            return
        try:
            done = self.socket.send(data)
        except BlockingIOError:
            done = 0
        except OSError:  # it has died; its death is handled when the loop sees it
            return
        if done < len(data):
            self._unsent += data[done:]
            # A descriptor of its own, since a poller knows only one interest per descriptor.
            self._write_fd = os.dup(self.socket.fileno())
            reactor.watch(self._write_fd, lambda: self._send_more(reactor), writing=True)

    def _send_more(self, reactor: Reactor) -> None:
        try:
            del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._stop_writing(reactor)

    def _stop_writing(self, reactor: Reactor) -> None:
        if self._write_fd is not None:
            reactor.unwatch(self._write_fd)
            os.close(self._write_fd)
            self._write_fd = None

    def receive(self, to_the_end: bool = False) -> tuple[list[Frame], bool]:
        """Frames that have come, and whether the stream has ended."""
        frames: list[Frame] = []
        reads = 0
        while to_the_end or reads < _READS_PER_WAKE:
            try:
                data = self.socket.recv(_READ_BYTES)
            except BlockingIOError:
                return frames, False
            except OSError:
                return frames, True
            if not data:
                return frames, True
            frames.extend(self._reader.feed(data))
            if len(data) < _READ_BYTES and not to_the_end:
                break
            reads += 1
        return frames, False

    def recall(self, number: int) -> None:
        """Step (1) of the recall protocol: call back the jobs from `number` on."""
        self.cell.ints[RECALL] = min(self.cell.ints[RECALL], number)
        self.recalled_at = monotonic()
        self.settled = False

    @property
    def recalled_from(self) -> int:
        return self.cell.ints[RECALL]

    def end_recall(self) -> None:
        """Step (3): every number has been reported."""
        self.cell.ints[RECALL] = NEVER
        self.recalled_at = None
        self.settled = False

    def kill(self, signum: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self.state is State.DEAD:
            return
        try:
            if self.has_pidfd:
                # Exact, also when someone else has reaped it and its number was given away again.
                signal.pidfd_send_signal(self.death_fd, signum)
            else:
                os.kill(self.pid, signum)
        except ProcessLookupError:
            pass

    def exitcode(self) -> int | None:
        """Negative = signal; None if it still runs, or if someone else has reaped it."""
        code: int | None = self.process.exitcode
        return code

    def ended(self) -> bool:
        """Whether the process is gone."""
        if self.exitcode() is not None:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def descriptors(self) -> list[int]:
        """Everything of this child that the parent holds open."""
        extra = [] if self._write_fd is None else [self._write_fd]
        return [self.death_fd, *extra]

    def close(self, reactor: Reactor) -> None:
        """Give everything back; the process has ended."""
        self.state = State.DEAD
        self._stop_writing(reactor)
        reactor.unwatch(self.socket.fileno())
        reactor.unwatch(self.death_fd)
        self.socket.close()
        os.close(self.death_fd)
        self.process._popen.close()
        self.cell.close()

    def close_in_sibling(self) -> None:
        """In a child that was forked later: close this one's descriptors."""
        self.socket.close()
        for fd in self.descriptors():
            os.close(fd)
        self.process._popen.close()


def fork_child(
    index: int, options: PoolOptions, runner_factory: RunnerFactory, close_inherited: Callable[[], None]
) -> Child:
    """Fork one child; it reports READY or FAILED by its socket. Raises OSError when the system refuses."""
    ours, theirs = socket.socketpair()
    cell = Cell()

    def close_ours() -> None:
        ours.close()
        close_inherited()

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    setup = ChildSetup(
        socket=theirs,
        cell=cell,
        runner_factory=runner_factory,
        soft_limit_error=options.soft_limit_error,
        title=f"{options.name}: PoolWorker-{index + 1}",
        index=index,
        measure_memory=options.max_memory_per_child_kib is not None,
        parent_pid=os.getpid(),
        parent_death_signal=options.parent_death_signal,
        signal_mask=set(mask),
        close_inherited=close_ours,
    )
    process = get_context("fork").Process(
        target=child_main, args=(setup,), name=f"PoolWorker-{index + 1}", daemon=True
    )
    try:
        # So that no handler of the parent's runs in the child before it has its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # Objects that exist now are never collected in the child, so their pages stay shared.
        gc.freeze()
        try:
            process.start()
        finally:
            gc.unfreeze()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except OSError:
        ours.close()
        theirs.close()
        cell.close()
        raise
    theirs.close()
    ours.setblocking(False)
    death_fd, has_pidfd = _death_descriptor(process)
    return Child(index, process.pid, process, ours, death_fd, has_pidfd, cell)


def _death_descriptor(process: Any) -> tuple[int, bool]:
    """A descriptor, and whether it is a pidfd: grandchildren that hold sockets do not deceive that one."""
    try:
        return os.pidfd_open(process.pid), True
    except (AttributeError, OSError):
        return os.dup(process.sentinel), False
