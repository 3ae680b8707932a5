"""`app.Beat`: beat as a program."""

from __future__ import annotations

import logging
import signal
from functools import partial
from typing import Any

from qbeat.embedded import Embedded, EmbeddedService
from qbeat.schedulers import Scheduler
from qbeat.service import Service

logger = logging.getLogger(__name__)


class Beat:
    """Beat as a program of its own: imports the tasks, heeds SIGTERM and SIGINT, runs the service.

    Args:
        app: The app whose tasks are sent.
        max_interval: Longest sleep in seconds.
        schedule: File of the persistent scheduler.
        scheduler: Scheduler class or its name.
        hostname: Node name for remote control.
    """

    def __init__(
        self,
        app: Any,
        max_interval: float | None = None,
        schedule: str | None = None,
        scheduler: str | type[Scheduler] | None = None,
        hostname: str | None = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval
        self.schedule = schedule
        self.scheduler = scheduler
        self.hostname = hostname
        self.service: Service | None = None

    def Service(self) -> Service:
        """The service to run."""
        return Service(
            self.app,
            max_interval=self.max_interval,
            schedule_filename=self.schedule,
            scheduler_cls=self.scheduler,
            hostname=self.hostname,
        )

    def embedded(self, thread: bool = False) -> Embedded:
        """This beat to run beside a worker, whose node name it does not share: `qbeat@<host>` is its own.

        Args:
            thread: In a thread rather than a process, for pools of green threads.
        """
        host = (self.hostname or "").rpartition("@")[2] or None
        return EmbeddedService(
            self.app,
            self.max_interval,
            thread,
            schedule_filename=self.schedule,
            scheduler_cls=self.scheduler,
            hostname=host,
        )

    def run(self) -> None:
        """Run until a signal ends it; an error that ends it is raised, for a non-zero exit."""
        self.app.loader.import_default_modules()
        self.app.finalize()
        self.service = service = self.Service()
        old = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            service.start()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _on_signal(self, signum: int, frame: Any) -> None:
        if self.service is not None:
            self.service.stop()


def make_beat(app: Any) -> partial[Beat]:
    """What `app.Beat` is: `Beat` for this app."""
    return partial(Beat, app)
