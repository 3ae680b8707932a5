"""Stopping: warm, soft, cold and hard; and the signals that ask for it.

| stage | asked for by | what happens |
|---|---|---|
| warm | TERM, the first INT, command `shutdown` | hand back what has not started, finish what runs, exit 0 |
| soft | QUIT or the second INT with `worker_soft_shutdown_timeout` | the same for that many seconds, then cold |
| cold | QUIT, the second INT | end what runs; late-ack messages go back to their queues, exit 1 |
| hard | INT or QUIT during a cold one | leave at once |

Signal handlers only note what is asked for and wake the loop: between two ticks `Lifecycle.check` acts on it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qcore.errors import WorkerShutdown, WorkerTerminate
from qcore.signals import worker_shutting_down
from qworker import rdb
from qworker.state import SCHEDULED

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer
    from qworker.worker import WorkController

logger = logging.getLogger(__name__)

EX_OK = 0
EX_FAILURE = 1
SETTLE_SECONDS = 5.0

RUNNING, DRAINING, SOFT = "running", "draining", "soft"


class Lifecycle:
    """Takes the worker from running to stopped.

    Args:
        worker: The worker.
        clock: Monotonic seconds.
    """

    def __init__(self, worker: WorkController, clock: Callable[[], float] = time.monotonic) -> None:
        self.worker = worker
        self.clock = clock
        self.phase = RUNNING
        self.soft_deadline: float | None = None

    # -- asking; from signal handlers and other threads

    def request_warm(self, exitcode: int = EX_OK) -> None:
        """Stop when what runs is done."""
        if self.worker.state.should_stop is None:
            self.worker.state.should_stop = exitcode
        self.worker.wakeup.set()

    def request_cold(self, exitcode: int = EX_FAILURE) -> None:
        """Stop now, or after the soft shutdown's time."""
        state = self.worker.state
        if self.soft_deadline is None and self._soft_seconds() > 0:
            self.soft_deadline = self.clock() + self._soft_seconds()
            state.should_stop = exitcode
        else:
            state.should_terminate = exitcode
        self.worker.wakeup.set()

    def _soft_seconds(self) -> float:
        conf = self.worker.app.conf
        seconds = float(conf.worker_soft_shutdown_timeout or 0.0)
        if conf.worker_enable_soft_shutdown_on_idle:
            return seconds
        # A request counts from its dispatch: news of its start may be on the way.
        busy = any(request.phase is not SCHEDULED for request in self.worker.state)
        return seconds if busy else 0.0

    # -- acting; in the loop

    def check(self) -> None:
        """Take the next step that is due; called between two ticks.

        Raises:
            WorkerShutdown: everything is done.
            WorkerTerminate: the worker has to stop now.
        """
        state = self.worker.state
        if state.should_terminate is not None:
            raise WorkerTerminate(state.should_terminate)
        if state.should_stop is None:
            return
        consumer = self.worker.consumer
        if self.phase == RUNNING:
            self.phase = DRAINING
            if consumer is not None:
                hand_back(consumer)
        if consumer is None or self._drained(consumer):
            raise WorkerShutdown(state.should_stop)
        if self.soft_deadline is not None and self.clock() >= self.soft_deadline:
            raise WorkerTerminate(state.should_stop or EX_FAILURE)

    def _drained(self, consumer: Consumer) -> bool:
        return not consumer.state.by_tag and not consumer.settler.pending

    def finish_without_broker(self, consumer: Consumer) -> None:
        """The connection was lost while stopping: let what runs finish, and raise as `check` does."""
        while True:
            self.check()
            self.worker.tick_offline(0.5)


def hand_back(consumer: Consumer) -> None:
    """Stop consuming, and give everything back to the broker that has not started."""
    from qworker.consumer.reconnect import take_back
    from qworker.consumer.tasks import stop_consuming

    stop_consuming(consumer)
    for held in consumer.held.values():
        held.take_all()
    for entry in consumer.eta_entries.values():
        entry.cancel()
    consumer.eta_entries.clear()
    waiting = [request for request in consumer.state.by_tag.values() if request.phase is SCHEDULED]
    requests = waiting + take_back(consumer)
    consumer.release(requests)
    consumer.trials.hand_back()
    if requests:
        logger.info("Handed %d messages back to the broker that had not started.", len(requests))


def abandon(consumer: Consumer) -> None:
    """Cold shutdown: late-ack messages go back, tasks whose message is gone already fail."""
    from qcore.errors import WorkerLostError

    restored = 0
    for request in list(consumer.state.by_tag.values()):
        if request.acknowledged:
            consumer.settle(request, "FAILURE", WorkerLostError("The worker was stopped while the task ran"))
            consumer.state.forget(request)
        else:
            restored += 1
            consumer.reject(request, True)
            request.acknowledged = True
            consumer.state.forget(request)
    if restored:
        logger.warning("Restoring %d unacknowledged message(s)", restored)
    consumer.settler.join(SETTLE_SECONDS)


class SignalHandlers:
    """Installs the worker's process signals; `restore()` puts the former ones back.

    Only a main thread can do so; elsewhere nothing is installed.
    """

    def __init__(self, worker: WorkController, announce: Callable[[str], object] | None = None) -> None:
        self.worker = worker
        self.announce = announce or _announce
        self.previous: dict[int, Any] = {}
        self.interrupts = 0
        self.restart_requested = False

    def install(self) -> None:
        """Take over TERM, QUIT, INT, HUP and USR1; USR2 when `Q_RDBSIG` is set."""
        if threading.current_thread() is not threading.main_thread():
            return
        term = self.on_cold if os.environ.get("REMAP_SIGTERM") == "SIGQUIT" else self.on_warm
        self._set("SIGTERM", term)
        self._set("SIGQUIT", self.on_cold)
        self._set("SIGINT", self.on_interrupt)
        self._set("SIGUSR1", self.on_dump)
        if os.environ.get("Q_RDBSIG"):
            self._set("SIGUSR2", rdb.on_signal)
        if sys.platform != "darwin":
            self._set("SIGHUP", self.on_warm if _has_terminal() else self.on_restart)

    def restore(self) -> None:
        """Put the former handlers back."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous.clear()

    def _set(self, name: str, handler: Callable[[int, Any], None]) -> None:
        number = getattr(signal, name, None)
        if number is not None:
            self.previous[number] = signal.signal(number, handler)

    # -- handlers

    def on_warm(self, number: int, frame: Any) -> None:
        """Warm shutdown; a second one changes nothing."""
        if self.worker.state.should_stop is None:
            self._tell(number, "Warm", EX_OK)
            self.announce(f"worker: Warm shutdown ({self.worker.process_name})")
        self.worker.lifecycle.request_warm()

    def on_interrupt(self, number: int, frame: Any) -> None:
        """Warm at first, then cold, then hard."""
        self.interrupts += 1
        if self.interrupts == 1 and self.worker.state.should_stop is None:
            self.announce(
                "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!"
            )
            self.on_warm(number, frame)
        else:
            self.on_cold(number, frame)

    def on_cold(self, number: int, frame: Any) -> None:
        """Soft or cold shutdown; hard when a cold one is on already."""
        lifecycle = self.worker.lifecycle
        if self.worker.state.should_terminate is not None:
            raise WorkerTerminate(EX_FAILURE)
        soft_before = lifecycle.soft_deadline is not None
        lifecycle.request_cold()
        if lifecycle.soft_deadline is not None and not soft_before:
            self._tell(number, "Soft", EX_FAILURE)
            seconds = self.worker.app.conf.worker_soft_shutdown_timeout
            self.announce(f"Initiating Soft Shutdown, terminating in {seconds} seconds")
            return
        self._tell(number, "Cold", EX_FAILURE)
        self.announce("worker: Hitting Ctrl+C again will terminate all running tasks!")
        self.announce(f"worker: Cold shutdown ({self.worker.process_name})")

    def on_restart(self, number: int, frame: Any) -> None:
        """Warm shutdown, then the same program again."""
        self.restart_requested = True
        self.announce(f"worker: Restarting ({' '.join(sys.argv)})")
        self.worker.lifecycle.request_warm()

    def on_dump(self, number: int, frame: Any) -> None:
        """Write the stacks of all threads to stderr."""
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)

    def _tell(self, number: int, how: str, exitcode: int) -> None:
        worker_shutting_down.send(
            sender=self.worker.hostname, sig=signal.Signals(number).name, how=how, exitcode=exitcode
        )


def _announce(text: str) -> None:
    # Not through logging: a signal handler may interrupt a thread that holds a log handler's lock.
    stream = sys.__stderr__
    if stream is not None:
        # Nobody may be reading any more; the shutdown goes on.
        with contextlib.suppress(OSError, ValueError):
            os.write(stream.fileno(), f"\n{text}\n".encode())


def _has_terminal() -> bool:
    try:
        return os.isatty(sys.stdin.fileno())
    except (AttributeError, ValueError, OSError):
        return False
