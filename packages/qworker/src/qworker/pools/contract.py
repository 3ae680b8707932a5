"""What a pool is: the records and protocols between the worker, a pool and the code it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from signal import SIGKILL, SIGTERM
from typing import Any, ClassVar, Protocol

from attrs import frozen

from qcore.errors import SoftTimeLimitExceeded


@frozen
class Work:
    """One thing to run.

    Attributes:
        tag: Unique in this worker process.
        kind: Task name; run times are averaged per kind.
        payload: Given to `Runner.run`; must be picklable for the prefork pool.
        soft_limit: Seconds after which `SoftTimeLimitExceeded` is raised in the user's code; None = no limit.
        hard_limit: Seconds after which the work is ended by force; None = no limit.
    """

    tag: int
    kind: str
    payload: object
    soft_limit: float | None = None
    hard_limit: float | None = None


class Runner(Protocol):
    """Runs payloads; it lives in the child process, or in the threads, of a pool.

    The runner marks the stretch in which the user's own code runs with `qworker.pools.limits.guard()`: only
    there is the exception of a limit raised.
    """

    def start(self) -> None:
        """Prepare; called once per process, after the fork."""
        ...

    def run(self, payload: object) -> object:
        """Run one payload and return a plain value; never raises, apart from the limits' exceptions."""
        ...

    async def arun(self, payload: object) -> object:
        """The same for the asyncio pool: many run at once."""
        ...

    def flush(self) -> None:
        """Send what `run` buffered (results); called before the outcomes travel back.

        May be called from another thread while `run` is at work: the results of jobs that are done must not
        wait for one that takes long.
        """
        ...

    def stop(self) -> None:
        """Release everything; called once before the process or the pool ends."""
        ...


class PoolEvents(Protocol):
    """What the pool reports, in the parent's loop thread.

    Every work gets exactly one of `on_done`, `on_lost` and `on_timeout(soft=False)`, in the end;
    `on_accepted` comes at most once and before it.
    """

    def on_accepted(self, tag: int, pid: int, started: float) -> None:
        """The work has started; `started` is in monotonic seconds."""
        ...

    def on_done(self, tag: int, result: object, pid: int) -> None:
        """`Runner.run` returned, and `Runner.flush` was called after it."""
        ...

    def on_lost(self, tag: int, pid: int, exitcode: int | None, started: bool) -> None:
        """The child died (a negative exit code is a signal), or the work was dropped.

        `started` is False for work that never ran and never will: dropped by `terminate_job`, by
        `terminate()`, or because its payload cannot be pickled. Not started work of a dead child runs
        elsewhere, without notice.
        """
        ...

    def on_timeout(self, tag: int, soft: bool, limit: float) -> None:
        """A limit (seconds) has passed. A soft one is news only, a hard one ends the work."""
        ...

    def on_fatal(self, reason: str) -> None:
        """Children fail to start again and again; `reason` holds the last one's traceback.

        The pool goes on trying, ever more slowly. The worker should stop if it can run nothing else.
        """
        ...


class EventHub(Protocol):
    """The part of `kombu.asynchronous.Hub` that pools use."""

    timer: Any

    def add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> object: ...

    def add_writer(self, fd: int, callback: Callable[..., object], *args: object) -> object: ...

    def remove(self, fd: int) -> None: ...


RunnerFactory = Callable[[], Runner]


@frozen(kw_only=True)
class PoolOptions:
    """Choices that all pools know; a pool refuses those that it cannot honour."""

    soft_limit_error: type[BaseException] = SoftTimeLimitExceeded
    """What is raised at a soft limit; called with the limit in seconds."""
    max_tasks_per_child: int | None = None
    max_memory_per_child_kib: int | None = None
    """Resident memory, KiB."""
    proc_alive_timeout: float = 4.0
    """Seconds that a child may take to start."""
    terminate_grace: float = 0.0
    """Seconds between SIGTERM and SIGKILL at a hard limit; 0 = SIGKILL at once."""
    parent_death_signal: int | None = SIGKILL
    """Sent to the children by the kernel when the parent dies (Linux)."""
    own_thread: bool = False
    """Run the pool's loop in a thread of its own, in place of `register_with_event_loop` or `poll`."""
    name: str = "q"
    """Process and thread titles begin with it."""
    short_seconds: float = 0.005
    """A kind with a shorter average run time may be given out several at a time."""
    batch_seconds: float = 0.03
    """Expected work that one child is given at most."""
    batch_jobs: int = 256
    """Jobs in one frame at most."""
    start_failures: int = 5
    """Failed starts in a row that are reported by `on_fatal`."""


@frozen
class Capabilities:
    """What a kind of pool can do beyond running work."""

    soft_limit: bool = False
    hard_limit: bool = False
    terminate: bool = False
    resize: bool = False
    recycle: bool = False
    """`max_tasks_per_child`, `max_memory_per_child_kib` and `restart`."""


class Pool(ABC):
    """Runs work, `concurrency` at a time.

    All methods are called from one thread (the loop's), unless `options.own_thread` is set. The loop is
    driven by `register_with_event_loop(hub)`, by calling `poll()`, or by the pool's own thread.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities] = Capabilities()

    @abstractmethod
    def start(self) -> None:
        """Start the children; returns before they are ready.

        The calling thread must live as long as the pool: the system ends child processes with the thread that
        forked them.
        """

    @abstractmethod
    def register_with_event_loop(self, hub: EventHub) -> None:
        """Let a kombu `Hub` drive the pool; may be called again with a new hub."""

    @abstractmethod
    def poll(self, timeout: float | None = None) -> None:
        """Handle what is ready, waiting at most `timeout` seconds for something."""

    @abstractmethod
    def submit(self, work: Work) -> None:
        """Append to the queue, which `flush()` and places that become free empty. Raises `PoolClosed`."""

    @abstractmethod
    def flush(self) -> None:
        """Hand the queued work out; called at the end of every tick of the loop."""

    @abstractmethod
    def terminate_job(self, tag: int, signal: int = SIGTERM) -> bool:
        """End one work by force, or drop it from the queue; False if the pool does not have it.

        It is reported as lost. Raises `LimitUnsupported` for running work of a pool that cannot end it.
        """

    @abstractmethod
    def take_back(self) -> list[int]:
        """Give up everything that has not started; the tags, which get no event any more."""

    @abstractmethod
    def grow(self, n: int = 1) -> None:
        """Run `n` more at a time."""

    @abstractmethod
    def shrink(self, n: int = 1) -> None:
        """Run `n` fewer at a time; busy children finish first. Raises ValueError below zero."""

    @abstractmethod
    def restart(self) -> None:
        """Replace every child by a fresh one, each when it has finished what it runs."""

    @abstractmethod
    def close(self) -> None:
        """Take no more work; what was given still runs."""

    @abstractmethod
    def join(self, timeout: float | None = None) -> bool:
        """Close, run everything to its end, stop the children; False if `timeout` seconds passed first."""

    @abstractmethod
    def terminate(self) -> None:
        """End everything now; what has no outcome yet is reported as lost."""

    @abstractmethod
    def info(self) -> Mapping[str, object]:
        """The `pool` section of the worker's statistics."""

    @property
    @abstractmethod
    def num_processes(self) -> int:
        """How many run at a time."""

    @property
    @abstractmethod
    def free_slots(self) -> int:
        """How many more would start at once."""
