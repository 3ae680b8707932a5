"""Beat inside a worker: in a thread, or in a process of its own."""

from __future__ import annotations

import signal
import threading
from typing import Any, Protocol

from qbeat.service import Service
from qcore import signals


class Embedded(Protocol):
    """A beat that runs beside the worker."""

    service: Service

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, after a last write of the schedule."""


class ThreadBeat:
    """Beat in a thread."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._thread = threading.Thread(target=self._run, name="Beat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        signals.beat_embedded_init.send(sender=self.service)
        self.service.start()

    def stop(self) -> None:
        """End, after a last write of the schedule."""
        self.service.stop()
        if self._thread.ident is not None:
            self._thread.join()

    terminate = stop


class ProcessBeat:
    """Beat in a child process, which ends with the worker."""

    def __init__(self, service: Service) -> None:

        from billiard.context import Process  # heavy, and `from qbeat import crontab` needs none of it

        self.service = service
        self._process: Any = Process(target=_run_in_child, args=(service,), name="Beat")
        self._process.daemon = True

    def start(self) -> None:
        """Begin."""
        self._process.start()

    def stop(self) -> None:
        """End, after a last write of the schedule."""
        if self._process.pid is not None and self._process.exitcode is None:
            self._process.terminate()
            self._process.join()

    terminate = stop


def _run_in_child(service: Service) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control-C reaches the worker, which then ends beat
    signal.signal(signal.SIGTERM, lambda signum, frame: service.stop())
    service.app.set_default()
    service.app.after_fork()
    service.start(embedded_process=True)


def EmbeddedService(
    app: Any, max_interval: float | None = None, thread: bool = False, **options: Any
) -> Embedded:
    """A beat to run beside a worker.

    Args:
        app: The app whose tasks are sent.
        max_interval: Longest sleep in seconds.
        thread: In a thread rather than a process, for pools of green threads.
        **options: As `Service`.
    """
    service = Service(app, max_interval, **options)
    return ThreadBeat(service) if thread else ProcessBeat(service)
