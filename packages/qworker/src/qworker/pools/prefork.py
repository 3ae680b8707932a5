"""The prefork pool: work runs in child processes that are forked ahead."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from signal import SIGKILL, SIGTERM
from threading import current_thread
from time import monotonic, sleep
from typing import Any

from .base import LoopPool
from .cell import RUNNING, SETTLE_SECONDS, SINCE, STARTED
from .contract import Capabilities, PoolEvents, PoolOptions, RunnerFactory, Work
from .crew import Crew, CrewEvents
from .dispatch import Dispatcher
from .frames import FAILED, READY, Frame
from .process import Child, State
from .watch import LOOK_SECONDS, Watch

logger = logging.getLogger(__name__)

KILL_WAIT_SECONDS = 5.0
CUT_OFF_SECONDS = 1.0


class Pool(LoopPool):
    """Work in child processes.

    `crew` keeps the children alive, `dispatch` gives them jobs, `watch` looks after those that take long;
    here outcomes and deaths are booked. See `cell` for how a dead child's jobs are told apart.
    """

    name = "prefork"
    capabilities = Capabilities(soft_limit=True, hard_limit=True, terminate=True, resize=True, recycle=True)

    def __init__(
        self,
        runner_factory: RunnerFactory,
        concurrency: int,
        events: PoolEvents,
        options: PoolOptions | None = None,
    ) -> None:
        super().__init__(runner_factory, concurrency, events, options)
        crew_events = CrewEvents(self._on_readable, self._on_exit, self._changed, self._reports.fatal)
        self._crew = Crew(self.options, runner_factory, self._reactor, crew_events)
        self._dispatcher = Dispatcher(
            self.options, self._crew, self._reactor, self._on_unsendable, self._queue
        )
        self._watch = Watch(
            self.options, self._crew, self._reactor, self._reports, self._give_back, self._changed
        )
        self._doomed: set[int] = set()
        self._terminating = False

    # --- LoopPool ---------------------------------------------------------------------------------

    def _open(self) -> None:
        self._crew.grow(self._concurrency)

    def _dispatch(self) -> None:
        sent = False
        while self._dispatcher.dispatch():
            sent = True
        if sent:
            self._watch.within(LOOK_SECONDS)

    def _idle(self) -> bool:
        return not self._queue and not any(child.in_flight for child in self._crew.everyone())

    def _stop_children(self) -> bool:
        if not self._crew.stopping:
            self._watch.stop()
            self._crew.stop_all()
        return not any(True for _ in self._crew.everyone())

    # --- what children report ---------------------------------------------------------------------

    def _on_readable(self, child: Child) -> None:
        frames, ended = child.receive()
        for frame in frames:
            self._book(child, frame)
        if ended and child.state is not State.DEAD:
            # The process may outlive its socket by a moment; its death descriptor tells when it is gone.
            self._reactor.unwatch(child.socket.fileno())
            # A task that closed all descriptors has cut it off for good.
            self._reactor.call_later(CUT_OFF_SECONDS, lambda: child.kill(SIGKILL))
        if frames:
            self._crew.drained(child)
            self._changed()

    def _changed(self) -> None:
        self._dispatch()
        self._check_finished()

    def _book(self, child: Child, frame: Frame) -> None:
        if frame[0] == READY:
            self._crew.ready(child)
        elif frame[0] == FAILED:
            child.failure = frame[1]
        else:
            self._book_outcomes(child, frame[1], frame[2], frame[3])
            if frame[4]:
                self._mind_memory(child, frame[4])

    def _book_outcomes(
        self, child: Child, entries: list[tuple[Any, ...]], skips: list[tuple[int, int]], soft: list[int]
    ) -> None:
        reports, learn = self._reports, self._dispatcher.times.learn
        in_flight, pid, doomed = child.in_flight, child.pid, self._doomed
        for entry in entries:
            number = entry[0]
            work = in_flight.get(number)
            if work is None:
                continue
            learn(work.kind, entry[3])
            if doomed:
                doomed.discard(work.tag)
            if child.accepted < number:
                child.accepted = number
                reports.accepted(work, pid, entry[2])
            if soft and number in soft:
                self._watch.announce_soft(child, number)
            del in_flight[number]
            if len(entry) == 4:
                reports.done(work, entry[1], pid)
            else:
                logger.critical("The runner of pool process %d failed in %s: %s", pid, work.kind, entry[4])
                reports.lost(work, pid, None, True)
        child.reported += len(entries) + sum(end - first for first, end in skips)
        for first, end in skips:
            self._give_back(child.take_back(first, end))
        if child.recalled_at is not None and child.reported == child.sent:
            child.end_recall()
        child.expected_seconds *= len(in_flight) / (len(in_flight) + len(entries) or 1)

    def _mind_memory(self, child: Child, memory_kib: int) -> None:
        limit = self.options.max_memory_per_child_kib
        if limit is None or memory_kib <= limit or child.state is not State.READY:
            return
        logger.warning(
            "Pool process %d has %d KiB of resident memory, more than %d KiB: it is replaced when it has "
            "finished what it runs",
            child.pid,
            memory_kib,
            limit,
        )
        self._crew.retire(child)

    def _on_exit(self, child: Child) -> None:
        """Hear its last words, then tell the fate of what it had."""
        frames, _ = child.receive(to_the_end=True)
        for frame in frames:
            self._book(child, frame)
        exitcode = child.exitcode()
        running = child.cell.ints[RUNNING]
        innocent: list[Work] = []
        for number, work in child.in_flight.items():
            if number > running:
                innocent.append(work)
                continue
            if child.accepted < number:
                child.accepted = number
                self._reports.accepted(work, child.pid, child.cell.floats[SINCE])
            if child.timed_out is not None and child.timed_out[0] == number:
                self._reports.hard_timeout(work, child.timed_out[1])
            else:
                self._reports.lost(work, child.pid, exitcode, True)
        child.in_flight.clear()
        self._give_back(innocent)

    def _on_unsendable(self, work: Work, error: Exception) -> None:
        logger.error("The payload of %s cannot be sent to a pool process: %s", work.kind, error)
        self._reports.lost(work, 0, None, started=False)

    def _give_back(self, works: list[Work]) -> None:
        """Queue jobs again, before all others; those that were to be ended are dropped."""
        kept = []
        for work in works:
            if self._terminating or work.tag in self._doomed:
                self._doomed.discard(work.tag)
                self._reports.lost(work, 0, None, started=False)
            else:
                kept.append(work)
        self._queue.extendleft(reversed(kept))

    # --- commands ---------------------------------------------------------------------------------

    def terminate_job(self, tag: int, signal: int = SIGTERM) -> bool:
        return self._in_loop(lambda: self._terminate_job(tag, signal))

    def _terminate_job(self, tag: int, signum: int) -> bool:
        if self._drop_queued(tag):
            return True
        for child in self._crew.everyone():
            for number, work in child.in_flight.items():
                if work.tag == tag:
                    self._doomed.add(tag)
                    self._watch.doom(child, number, signum)
                    return True
        return False

    def take_back(self) -> list[int]:
        return self._in_loop(self._take_back)

    def _take_back(self) -> list[int]:
        for child in self._crew.active():
            if child.in_flight:
                child.recall(child.cell.ints[STARTED] + 1)
        sleep(2 * SETTLE_SECONDS)
        for child in self._crew.active():
            if child.recalled_at is not None:
                self._watch.settle(child)
        self._watch.within(LOOK_SECONDS)
        return self._empty_queue()

    def grow(self, n: int = 1) -> None:
        _positive(n)
        self._in_loop(lambda: self._crew.grow(n))

    def shrink(self, n: int = 1) -> None:
        _positive(n)
        self._in_loop(lambda: self._crew.shrink(n))

    def restart(self) -> None:
        self._in_loop(self._crew.recycle_all)

    def terminate(self) -> None:
        self._in_loop(self._terminate)
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join(KILL_WAIT_SECONDS)

    def _terminate(self) -> None:
        if self._finished:
            self._reactor.close()
            return
        self._closed = self._terminating = True
        queued = list(self._queue)
        self._queue.clear()
        self._give_back(queued)
        self._watch.stop()
        self._crew.kill_all()
        deadline = monotonic() + KILL_WAIT_SECONDS
        while any(True for _ in self._crew.everyone()) and monotonic() < deadline:
            self._reactor.run_once(0.1)
        self._finished = True
        if self._thread is None:
            self._reactor.close()

    # --- facts ------------------------------------------------------------------------------------

    @property
    def num_processes(self) -> int:
        return self._crew.size

    @property
    def free_slots(self) -> int:
        idle = sum(child.available and not child.in_flight for child in self._crew.active())
        return max(0, idle - len(self._queue))

    def info(self) -> Mapping[str, object]:
        return self._in_loop(self._info)

    def _info(self) -> Mapping[str, object]:
        children = list(self._crew.active())
        counts = [child.sent for child in children]
        total = sum(counts)
        shares = [f"{count / total if total else 0:.2%}" for count in counts]
        return {
            "implementation": self.implementation,
            "max-concurrency": self._crew.size,
            "processes": [child.pid for child in children],
            "max-tasks-per-child": self.options.max_tasks_per_child or "N/A",
            "put-guarded-by-semaphore": False,
            "writes": {
                "total": total,
                "avg": f"{1 / len(counts) if counts else 0:.2%}",
                "all": ", ".join(shares),
                "raw": ", ".join(map(str, counts)),
                "strategy": "fair",
                "inqueues": {
                    "total": len(children),
                    "active": sum(bool(child.in_flight) for child in children),
                },
            },
        }


def _positive(n: int) -> None:
    if n < 0:
        raise ValueError(f"a pool cannot change its size by {n}; give a number from 0 up")
