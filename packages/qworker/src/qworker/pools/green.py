"""What the gevent and eventlet pools share: work runs in greenlets, which give way when they wait.

The process must have been patched by the library (`gevent.monkey.patch_all()`, `eventlet.monkey_patch()`)
before anything else was imported: an unpatched call that blocks stops the whole worker. A limit is raised in
a greenlet at the point where it waits; one that computes without waiting cannot be interrupted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from . import limits
from .contract import Capabilities, Work
from .inprocess import InProcessPool, Running
from .interrupt import Interrupter


class GreenInterrupter(Interrupter):
    """Throws into a greenlet from the library's hub."""

    def __init__(self, call_in_hub: Callable[[Callable[[], None]], object]) -> None:
        super().__init__()
        self._call_in_hub = call_in_hub
        self.greenlet: Any = None

    def _send(self, error: type[BaseException]) -> None:
        self._call_in_hub(lambda: self._throw(error))

    def _throw(self, error: type[BaseException]) -> None:
        if self._raising and self.greenlet is not None:
            self._raising = False
            self.greenlet.throw(error)

    def _recall(self) -> None:
        """`_throw` sees that nothing is to be raised any more."""


class GreenPool(InProcessPool):
    """Work in greenlets."""

    capabilities = Capabilities(soft_limit=True, hard_limit=True, terminate=True, resize=True)

    @abstractmethod
    def _spawn(self, function: Callable[[Running], None], job: Running) -> object:
        """Run it in a new greenlet, soon."""

    @abstractmethod
    def _call_in_hub(self, callback: Callable[[], None]) -> object:
        """Call it from the greenlet that runs the library's loop."""

    @abstractmethod
    def _current_greenlet(self) -> object:
        """The greenlet that calls."""

    def _start_runner(self) -> None:
        self._runner.start()

    def _interrupter(self, work: Work) -> Interrupter:
        return GreenInterrupter(self._call_in_hub)

    def _launch(self, jobs: list[Running]) -> None:
        for job in jobs:
            self._spawn(self._run_green, job)

    def _run_green(self, job: Running) -> None:
        if job.over:
            return
        assert isinstance(job.limiter, GreenInterrupter)
        job.limiter.greenlet = self._current_greenlet()
        limits.current.set(job.limiter)
        self._run_job(job)

    def _abandoned(self, job: Running) -> None:
        """Nothing to do: places are counted, not kept."""

    def _stop_places(self) -> None:
        """Nothing to do: a greenlet ends with its job."""
