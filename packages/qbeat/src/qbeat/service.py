"""The beat service: makes the scheduler tick, sleeps in between, writes the schedule, stops when told."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from qbeat.control import BeatNode
from qbeat.leader import Leader
from qbeat.schedulers import Scheduler, load_scheduler
from qbeat.wakeup import Wakeup
from qcore import signals
from qcore.times import humanize_seconds

logger = logging.getLogger(__name__)


class Service:
    """Runs a scheduler.

    Of several beats that share a schedule file, the first leads; the others stand by and take over within a
    second or so when it is gone.

    Args:
        app: The app whose tasks are sent.
        max_interval: Longest sleep in seconds.
        schedule_filename: File of the persistent scheduler.
        scheduler_cls: Scheduler class or its name; the setting `beat_scheduler` by default.
        leader: Decides which of several beats sends; that of the scheduler class by default.
        hostname: Node name for remote control; `qbeat@<host>` by default.
    """

    def __init__(
        self,
        app: Any,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: str | type[Scheduler] | None = None,
        leader: Leader | None = None,
        hostname: str | None = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or None
        self.schedule_filename = schedule_filename or app.conf.beat_schedule_filename
        self.scheduler_cls = load_scheduler(scheduler_cls or app.conf.beat_scheduler)
        self.leader = leader if leader is not None else self._scheduler_leader()
        self.hostname = hostname
        self.last_tick: float | None = None
        """Monotonic seconds of the last tick; None while standing by."""
        self._scheduler: Scheduler | None = None
        self._stopping = Wakeup()
        self._stopped = threading.Event()

    def _scheduler_leader(self) -> Leader | None:
        make = getattr(self.scheduler_cls, "leader", None)
        return make(self.app, self.schedule_filename) if make is not None else None

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler, made on first use."""
        if self._scheduler is None:
            self._scheduler = self.get_scheduler()
        return self._scheduler

    def get_scheduler(self, lazy: bool = False) -> Scheduler:
        """A new scheduler."""
        # Schedulers from elsewhere may know nothing of claims; those that elect a leader do.
        claim: dict[str, Any] = {"claim": self.leader} if self.leader is not None else {}
        return self.scheduler_cls(
            self.app,
            max_interval=self.max_interval,
            lazy=lazy,
            schedule_filename=self.schedule_filename,
            **claim,
        )

    # -- running

    def start(self, embedded_process: bool = False) -> None:
        """Run until `stop`; an error that ends it is raised.

        Args:
            embedded_process: The service runs in a process of its own that belongs to a worker.
        """
        logger.info("beat: Starting...")
        self.app.finalize()
        signals.beat_init.send(sender=self)
        if embedded_process:
            signals.beat_embedded_init.send(sender=self)
        node = BeatNode(self) if self.app.conf.beat_enable_remote_control else None
        try:
            if node is not None:
                node.start()
            while not self._stopping.is_set:
                if self._lead():
                    self._run_while_leading()
        except (KeyboardInterrupt, SystemExit):
            self._stopping.set()
        except BaseException:
            logger.critical("beat: stopped by an error", exc_info=True)
            raise
        finally:
            if node is not None:
                node.stop()
            self._end()

    def _lead(self) -> bool:
        """Whether this beat leads now; waits a while when another one does."""
        if self.leader is None or self.leader.acquire():
            return True
        logger.warning("beat: another beat leads (%s): standing by until it is gone", self.leader.describe())
        while not self._stopping.wait(self.leader.retry_seconds):
            if self.leader.acquire():
                return True
        return False

    def _run_while_leading(self) -> None:
        scheduler = self.scheduler
        logger.info("beat: Ticking with max interval->%s", humanize_seconds(scheduler.max_interval))
        while not self._stopping.is_set:
            if self.leader is not None and not self.leader.acquire():
                logger.warning("beat: lost the lead to %s: standing by", self.leader.describe())
                self._drop_scheduler()
                return
            wait = scheduler.tick()
            self.last_tick = time.monotonic()
            if scheduler.should_sync():
                scheduler.do_sync()
            if wait > 0:
                if self.leader is not None:
                    wait = min(wait, self.leader.retry_seconds)
                logger.debug("beat: Waking up %s.", humanize_seconds(wait, prefix="in "))
                self._stopping.wait(wait)

    def _drop_scheduler(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        self.last_tick = None
        if scheduler is not None:
            scheduler.close()

    # -- stopping

    def sync(self) -> None:
        """Write the schedule and let go of its file."""
        if self._scheduler is not None:
            self._scheduler.close()

    def _end(self) -> None:
        try:
            self._drop_scheduler()
        finally:
            if self.leader is not None:
                self.leader.release()
            logger.info("beat: Stopped.")
            self._stopped.set()

    def stop(self, wait: bool = False) -> None:
        """Stop after the present tick, with a last write of the schedule; safe in a signal handler.

        Args:
            wait: Wait until it stopped.
        """
        self._stopping.set()
        if wait:
            self._stopped.wait()
