"""The children of a prefork pool: one slot each, started, replaced, recycled, added and taken away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from signal import SIGKILL

from attrs import define, field

from .contract import PoolOptions, RunnerFactory
from .frames import STOP, encode
from .process import Child, State, fork_child
from .reactor import Reactor

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 30.0
STOP_SECONDS = 5.0
"""How long a child may take over `Runner.stop` before it is killed."""


@define(eq=False)
class Slot:
    """One place of the pool; its index names the child in logs and stays when the child is replaced."""

    index: int
    child: Child | None = None
    spare: Child | None = None
    """The next child, started ahead and given nothing before its predecessor has finished."""
    removing: bool = False
    failures: int = 0
    waiting: bool = False
    """For the back-off after a failed start."""


@define(eq=False)
class CrewEvents:
    """Whom the crew tells."""

    on_readable: Callable[[Child], None]
    on_exit: Callable[[Child], None]
    """The process has ended; its socket is still open for reading."""
    on_change: Callable[[], None]
    """A child has become ready, or a place has changed hands."""
    on_fatal: Callable[[str], None]


@define(eq=False)
class Crew:
    """Keeps the wanted number of children alive."""

    options: PoolOptions
    runner_factory: RunnerFactory
    reactor: Reactor
    events: CrewEvents
    slots: list[Slot] = field(factory=list)
    leaving: set[Child] = field(factory=set)
    """Told to stop and not gone yet."""
    stopping: bool = False

    # --- size -------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return sum(not slot.removing for slot in self.slots)

    def grow(self, n: int) -> None:
        kept = [slot for slot in self.slots if slot.removing][:n]
        for slot in kept:
            slot.removing = False
            self._replace(slot)
        taken = {slot.index for slot in self.slots}
        for index in range(len(self.slots) + n - len(kept)):
            if index not in taken:
                slot = Slot(index)
                self.slots.append(slot)
                self._replace(slot)

    def shrink(self, n: int) -> None:
        if n > self.size:
            raise ValueError(f"the pool has {self.size} processes; it cannot lose {n}")

        def busy(slot: Slot) -> int:
            return len(slot.child.in_flight) if slot.child is not None else -1

        for slot in sorted((s for s in self.slots if not s.removing), key=lambda s: (busy(s), -s.index))[:n]:
            slot.removing = True
            if slot.spare is not None:
                self._stop(slot.spare)
                slot.spare = None
            if slot.child is None:
                self._forget(slot)
            else:
                self.retire(slot.child)

    def recycle_all(self) -> None:
        for slot in list(self.slots):
            if slot.child is not None:
                self.retire(slot.child)

    # --- life of a child --------------------------------------------------------------------------

    def active(self) -> Iterator[Child]:
        """The children that jobs are or were given to."""
        for slot in self.slots:
            if slot.child is not None:
                yield slot.child

    def everyone(self) -> Iterator[Child]:
        for slot in self.slots:
            if slot.child is not None:
                yield slot.child
            if slot.spare is not None:
                yield slot.spare
        yield from self.leaving

    def ready(self, child: Child) -> None:
        """The child has reported READY."""
        slot = self._slot(child)
        if child.state is not State.STARTING or slot is None:
            return
        child.state = State.READY
        slot.failures = 0
        if slot.spare is child and slot.child is None:
            slot.child, slot.spare = child, None
        self.events.on_change()

    def retire(self, child: Child) -> None:
        """Give it nothing more, start its successor, and stop it when it has finished what it has."""
        if child.state is State.STARTING:
            self._stop(child)
            slot = self._slot(child)
            if slot is not None and slot.child is child:
                slot.child = None
                self._replace(slot)
                if slot.removing:
                    self._forget(slot)
            return
        if child.state is State.READY:
            child.state = State.RETIRING
            slot = self._slot(child)
            if slot is not None:
                self._replace(slot)
        self.drained(child)

    def drained(self, child: Child) -> None:
        """Stop a retiring child that has nothing left to do; call it whenever its books change."""
        if child.state is not State.RETIRING or child.in_flight:
            return
        self._stop(child)
        slot = self._slot(child)
        if slot is None:
            return
        slot.child = None
        if slot.removing:
            self._forget(slot)
        elif slot.spare is not None and slot.spare.state is State.READY:
            slot.child, slot.spare = slot.spare, None
            self.events.on_change()
        else:
            self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        """Start what the slot lacks: its child, or the successor of a retiring one."""
        wanted = slot.child is None or slot.child.state is not State.READY
        if self.stopping or slot.removing or slot.waiting or slot.spare is not None or not wanted:
            return
        if slot.child is not None and slot.child.state is State.STARTING:
            return
        try:
            child = fork_child(slot.index, self.options, self.runner_factory, self._close_inherited)
        except OSError as error:
            self._start_failed(slot, f"the system refused a new process: {error}")
            return
        slot.spare = child
        if slot.child is None:
            slot.child, slot.spare = child, None
        self.reactor.watch(child.socket.fileno(), lambda: self.events.on_readable(child))
        self.reactor.watch(child.death_fd, lambda: self.exited(child))
        self.reactor.call_later(self.options.proc_alive_timeout, lambda: self._check_alive(child))

    def _check_alive(self, child: Child) -> None:
        if child.state is State.STARTING:
            child.failure = f"it did not start within {self.options.proc_alive_timeout:g} seconds"
            child.kill(SIGKILL)

    def exited(self, child: Child) -> None:
        """Its process has ended: let the pool read its last words, then fill its place."""
        if child.state is State.DEAD or not child.ended():
            return
        code = child.exitcode()
        # One that ends before its first job would be replaced as fast as the system can fork.
        starting = child.state is State.STARTING or (child.state is State.READY and not child.sent)
        # Before anything is told: a handler may have jobs handed out.
        child.state = State.STOPPING
        self.events.on_exit(child)
        self.leaving.discard(child)
        slot = self._slot(child)
        child.close(self.reactor)
        if slot is not None:
            self._fill_place(slot, child, f"it ended with exit code {code}" if starting else None)
        self.events.on_change()

    def _fill_place(self, slot: Slot, child: Child, failure: str | None) -> None:
        if slot.spare is child:
            slot.spare = None
        else:
            slot.child, slot.spare = slot.spare, None
        if (slot.removing or self.stopping) and slot.child is None:
            self._forget(slot)
        elif failure is not None:
            self._start_failed(slot, child.failure or f"{failure} before it ran anything")
        else:
            self._replace(slot)

    def _start_failed(self, slot: Slot, reason: str) -> None:
        slot.failures += 1
        delay = min(FIRST_RETRY_SECONDS * 2 ** (slot.failures - 1), LAST_RETRY_SECONDS)
        logger.error("Pool process %d did not start; next try in %g s: %s", slot.index + 1, delay, reason)
        slot.waiting = True
        self.reactor.call_later(delay, lambda: self._retry(slot))
        if slot.failures == self.options.start_failures:
            self.events.on_fatal(reason)

    def _retry(self, slot: Slot) -> None:
        slot.waiting = False
        if slot in self.slots:
            self._replace(slot)

    # --- the end ----------------------------------------------------------------------------------

    def stop_all(self) -> None:
        """Start nothing more, and end every child that has nothing to do; others end when drained."""
        self.stopping = True
        for slot in list(self.slots):
            slot.removing = True
            if slot.spare is not None:
                self._stop(slot.spare)
                slot.spare = None
            if slot.child is not None:
                self.retire(slot.child)
            if slot.child is None:
                self._forget(slot)

    def kill_all(self, signum: int = SIGKILL) -> None:
        self.stopping = True
        for child in list(self.everyone()):
            child.kill(signum)

    def _stop(self, child: Child) -> None:
        starting = child.state is State.STARTING
        child.state = State.STOPPING
        self.leaving.add(child)
        if starting:
            child.kill(SIGKILL)
        else:
            child.send(encode([STOP]), self.reactor)
        self.reactor.call_later(STOP_SECONDS, lambda: child.kill(SIGKILL))

    def _slot(self, child: Child) -> Slot | None:
        for slot in self.slots:
            if slot.child is child or slot.spare is child:
                return slot
        return None

    def _forget(self, slot: Slot) -> None:
        if slot in self.slots:
            self.slots.remove(slot)

    def _close_inherited(self) -> None:
        """Runs in a fresh child: close the parent's ends of everything."""
        for child in self.everyone():
            child.close_in_sibling()
        self.reactor.close_in_child()
