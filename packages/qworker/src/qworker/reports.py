"""What the pool reports, turned into calls of the requests."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, cast

from qcore.execution.records import Outcome
from qworker import outcomes
from qworker.shutdown import EX_FAILURE
from qworker.state import ACTIVE

if TYPE_CHECKING:
    from qworker.worker import WorkController

logger = logging.getLogger(__name__)


class PoolReports:
    """The worker's side of `qworker.pools.contract.PoolEvents`; runs in the loop's thread."""

    def __init__(self, worker: WorkController) -> None:
        self.worker = worker
        self.by_tag = worker.state.by_tag
        self.requests = worker.state.requests
        self.clock_offset = 0.0
        self.set_clock_offset()

    def set_clock_offset(self) -> None:
        """Measure what to add to monotonic seconds for epoch seconds."""
        self.clock_offset = time.time() - time.monotonic()

    def on_accepted(self, tag: int, pid: int, started: float) -> None:
        """A child has taken it."""
        request = self.by_tag.get(tag)
        if request is not None:
            request.on_accepted(pid, started + self.clock_offset)

    def on_done(self, tag: int, result: object, pid: int) -> None:
        """It ran, and its result is stored."""
        request = self.by_tag.pop(tag, None)
        if request is None:
            return
        outcome = cast(Outcome, result)
        if self.requests.get(request.id) is request:
            del self.requests[request.id]
        if request.phase is not ACTIVE:
            request.on_accepted(pid, time.time() - outcome.runtime_seconds)
        worker = self.worker
        worker.freed_slots = True
        if worker.consumer is not None:
            worker.consumer.note_done(request, outcome)
        outcomes.dispatch(request, outcome)

    def on_lost(self, tag: int, pid: int, exitcode: int | None, started: bool) -> None:
        """The process died, or the work was dropped."""
        request = self.by_tag.pop(tag, None)
        if request is None:
            return
        self.worker.freed_slots = True
        if self.worker.cold:
            self.by_tag[tag] = request  # the cold shutdown deals with all of them together
            return
        request.on_lost(pid, exitcode)
        self.worker.state.forget(request)

    def on_timeout(self, tag: int, soft: bool, limit: float) -> None:
        """A limit has passed."""
        request = self.by_tag.get(tag)
        if request is None:
            return
        request.on_timeout(soft, limit)
        if not soft:
            self.worker.freed_slots = True
            self.worker.state.forget(request)

    def on_fatal(self, reason: str) -> None:
        """Children cannot be started at all: a worker without any is of no use."""
        if self.by_tag and any(request.phase is ACTIVE for request in self.by_tag.values()):
            logger.critical("Pool processes fail to start again and again: %s", reason)
            return
        logger.critical("Pool processes fail to start again and again, the worker stops: %s", reason)
        self.worker.lifecycle.request_warm(EX_FAILURE)
