"""The worker: options in, blueprint up, exit code out.

`WorkController` is the worker without process-wide effects: it can run in a thread of a test. `Worker` adds what a
program needs: process signals, and the data of the start-up screen.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from qcore import signals
from qcore.errors import ImproperlyConfigured, OperationalError, WorkerTerminate
from qcore.queues import worker_direct
from qcore.utils.nodes import expand_nodename
from qworker import (
    bootsteps,
    remote,  # noqa: F401 - importing it puts the built-in commands on the panel
)
from qworker.banner import Banner
from qworker.consumer.consumer import Consumer
from qworker.cpus import available_cpus, cpu_count
from qworker.reports import PoolReports
from qworker.shutdown import EX_FAILURE, EX_OK, Lifecycle, SignalHandlers, abandon
from qworker.state import WorkerState
from qworker.wakeup import Wakeup

logger = logging.getLogger(__name__)


class WorkerBlueprint(bootsteps.Blueprint):
    """The steps of the worker; they are started once."""

    name = "Worker"
    default_steps = (
        "qworker.components:Timer",
        "qworker.components:Hub",
        "qworker.components:Pool",
        "qworker.components:StateDB",
        "qworker.components:Autoscaler",
        "qworker.components:Beat",
        "qworker.components:Consumer",
    )


class WorkController:
    """A worker that is told when to stop by its owner.

    Args:
        app: The app.
        hostname: Node name; `%h`, `%n` and `%d` are expanded. Default `q@<host>`.
        concurrency: Number of slots, `"auto"`, or None for the setting.
        pool: Name or class of the pool.
        queues: Names of the queues to consume from; text is split at commas.
        exclude_queues: Names of queues not to consume from.
        include: Modules to import besides those of the settings.
        prefetch_multiplier: Messages per slot; 0 for no limit.
        disable_prefetch: Hold no more messages than there are slots.
        time_limit, soft_time_limit: Seconds, for tasks that have none of their own.
        max_tasks_per_child: A child is replaced after so many tasks.
        max_memory_per_child: A child is replaced when it holds more, KiB.
        autoscale: `(max, min)` or the text `"max,min"`.
        statedb: File that keeps revoked ids.
        task_events: Send task events.
        without_gossip, without_mingle, without_heartbeat: Leave these parts out.
        heartbeat_interval: Seconds between heartbeat events.
        beat: Run the beat inside.
        schedule, scheduler: State file and scheduler, for the beat.
        purge: Throw the waiting messages away first.
        child_setup: Called in each pool child once it is set up (logging, title).
        user_options: Options of `app.user_options["worker"]`; all steps get them.

    Raises:
        ImproperlyConfigured: an option makes no sense.
    """

    process_name = "MainProcess"

    def __init__(
        self,
        app: Any,
        *,
        hostname: str | None = None,
        concurrency: int | str | None = None,
        pool: Any = None,
        queues: str | Iterable[str] | None = None,
        exclude_queues: str | Iterable[str] | None = None,
        include: str | Iterable[str] | None = None,
        prefetch_multiplier: int | None = None,
        disable_prefetch: bool | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        autoscale: str | tuple[int, int] | None = None,
        statedb: str | os.PathLike[str] | None = None,
        task_events: bool | None = None,
        without_gossip: bool = False,
        without_mingle: bool = False,
        without_heartbeat: bool = False,
        heartbeat_interval: float | None = None,
        beat: bool = False,
        schedule: str | None = None,
        scheduler: Any = None,
        purge: bool = False,
        child_setup: Callable[[], None] | None = None,
        **user_options: Any,
    ) -> None:
        self.app = app
        self.hostname = expand_nodename(hostname or "")
        self.options: dict[str, Any] = {
            key: value
            for key, value in locals().items()
            if key not in ("self", "app", "user_options", "__class__")
        }
        self.options.update(user_options)
        self.options["hostname"] = self.hostname
        signals.worker_setup_init.send(
            sender=self.hostname, instance=self, conf=app.conf, options=dict(self.options)
        )
        conf = app.conf
        self.started_at = time.monotonic()
        self.pid = os.getpid()
        self.exitcode: int = EX_OK
        self.error: BaseException | None = None
        self.cold = False
        self.freed_slots = False
        self.steps: list[Any] = []
        self.on_stopped: list[Callable[[], object]] = []
        self.ready_callbacks: list[Callable[[Consumer], object]] = []
        self.timer: Any = None
        self.hub: Any = None
        self.pool: Any = None
        self.consumer: Consumer | None = None
        self.statedb: Any = None
        self.autoscaler: Any = None
        self.beat_service: Any = None
        self.reports: PoolReports | None = None
        self.state = WorkerState(conf, app.clock)
        self.wakeup = Wakeup()
        self.lifecycle = Lifecycle(self)

        self.pool_name = pool if pool is not None else conf.worker_pool
        self.concurrency = _concurrency(concurrency if concurrency is not None else conf.worker_concurrency)
        self.autoscale = _autoscale(autoscale)
        self.max_concurrency, self.min_concurrency = self.autoscale or (self.concurrency, self.concurrency)
        self.prefetch_is_explicit = prefetch_multiplier is not None or conf.value_set_for(
            "worker_prefetch_multiplier"
        )
        self.prefetch_multiplier: int = _first(prefetch_multiplier, conf.worker_prefetch_multiplier)
        self.disable_prefetch = bool(_first(disable_prefetch, conf.worker_disable_prefetch))
        self.default_limits: tuple[float | None, float | None] = (
            _first(time_limit, conf.task_time_limit) or None,
            _first(soft_time_limit, conf.task_soft_time_limit) or None,
        )
        self.max_tasks_per_child = _first(max_tasks_per_child, conf.worker_max_tasks_per_child) or None
        self.max_memory_per_child = _first(max_memory_per_child, conf.worker_max_memory_per_child) or None
        self.statedb_path = os.fspath(statedb) if statedb else conf.worker_state_db
        self.task_events = bool(_first(task_events, conf.worker_send_task_events))
        self.beat = beat
        self.schedule = schedule
        self.scheduler = scheduler
        self.purge = purge
        self.child_setup = child_setup
        self.step_options: dict[str, Any] = {**self.options, "task_events": self.task_events}

        self._import_modules(include)
        self._select_queues(queues, exclude_queues)
        self.on_before_init()
        self.blueprint = WorkerBlueprint(steps=app.steps["worker"])
        try:
            self.blueprint.apply(self, **self.step_options)
        except BaseException:
            self._close_loop()
            raise

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.blueprint.human_state()})>"

    def _close_loop(self) -> None:
        self.wakeup.close()
        if self.hub is not None:
            self.hub.close()

    def _import_modules(self, include: str | Iterable[str] | None) -> None:
        modules = _names(include)
        if modules:
            self.app.conf.include = [*(self.app.conf.include or ()), *modules]
        self.app.loader.init_worker()
        self.app.finalize()

    def _select_queues(
        self, queues: str | Iterable[str] | None, exclude_queues: str | Iterable[str] | None
    ) -> None:
        known = self.app.amqp.queues
        known.select(_names(queues))
        known.deselect(_names(exclude_queues))
        if self.app.conf.worker_direct:
            known.select_add(worker_direct(self.hostname))

    # -- hooks

    def on_before_init(self) -> None:
        """Hook: options are read, steps are not made yet."""
        signals.worker_after_setup.send(sender=self.hostname, instance=self, conf=self.app.conf)

    def on_start(self) -> None:
        """Hook: about to start."""

    def on_consumer_ready(self, consumer: Consumer) -> None:
        """Hook: messages are being consumed."""
        logger.info("%s ready.", self.hostname)
        for callback in self.ready_callbacks:
            callback(consumer)

    # -- life

    def start(self) -> int:
        """Run until the worker is told to stop; returns the exit code."""
        try:
            signals.worker_init.send(sender=self)
            self.on_start()
            if self.purge:
                self._purge()
            self.blueprint.start(self)
        except WorkerTerminate as exc:
            self.terminate(_exit_code(exc))
        except SystemExit as exc:
            self.stop(_exit_code(exc))
        except KeyboardInterrupt:
            self.stop(EX_FAILURE)
        except Exception as exc:
            expected = isinstance(exc, (ImproperlyConfigured, OperationalError))
            logger.critical("The worker stops: %s", exc, exc_info=not expected)
            self.error = exc
            self.stop(EX_FAILURE)
        return self.exitcode

    def stop(self, exitcode: int | None = None) -> None:
        """End after a warm shutdown: stop the steps in reverse."""
        self._end(exitcode, terminate=False)

    def terminate(self, exitcode: int | None = EX_FAILURE) -> None:
        """End now: kill the pool, give unacknowledged messages back, stop the steps."""
        self.cold = True
        if self.pool is not None:
            self.pool.terminate()
        if self.consumer is not None:
            abandon(self.consumer)
        self._end(exitcode, terminate=True)

    def _end(self, exitcode: int | None, terminate: bool) -> None:
        if exitcode is not None:
            self.exitcode = exitcode
        signals.worker_shutdown.send(sender=self)
        self.blueprint.stop(self, terminate=terminate)
        if self.consumer is not None:
            self.consumer.shutdown()
        for callback in self.on_stopped:
            callback()
        self.app.loader.shutdown_worker()

    def reload(self) -> None:
        """Take notice of tasks that were registered since the start, and of changed rate limits."""
        if self.consumer is not None:
            for name in self.app.tasks:
                self.consumer.strategy_of(name)
            self.consumer.reset_rate_limits()

    def request_stop(self, exitcode: int = EX_OK) -> None:
        """Ask for a warm shutdown; from any thread."""
        self.lifecycle.request_warm(exitcode)

    def _purge(self) -> None:
        count = self.app.control.purge()
        if count:
            logger.warning(
                "purge: Erased %d %s from the queues.", count, "messages" if count > 1 else "message"
            )

    # -- the loop

    @property
    def use_eventloop(self) -> bool:
        """Whether the broker's sockets are in the hub (asynchronous transports)."""
        with self.app.connection_for_read() as connection:
            return bool(connection.transport.implements.asynchronous)

    def tick(self) -> None:
        """One turn of the loop: timers, then whatever descriptor is ready."""
        self.hub.run_once()

    def tick_offline(self, seconds: float) -> None:
        """One turn without a broker, at most `seconds` long."""
        entry = self.timer.call_after(seconds, self.wakeup.set)
        self.pool.flush()
        self.tick()
        entry.cancel()

    # -- facts

    @property
    def active_requests(self) -> list[Any]:
        """Requests that run now."""
        return self.state.active

    @property
    def uptime_seconds(self) -> float:
        """Since the worker was made."""
        return time.monotonic() - self.started_at

    @property
    def broker_uri(self) -> str:
        """Address of the broker, without its password."""
        with self.app.connection_for_read() as connection:
            return str(connection.as_uri())

    @property
    def results_uri(self) -> str:
        """Address of the result store, without its password."""
        return str(getattr(self.app.backend, "url", None) or "disabled://")

    def stats(self) -> dict[str, Any]:
        """Everything that the command `stats` shows."""
        from qworker.statistics import stats

        return stats(self)

    def banner(self) -> Banner:
        """The data of the start-up screen."""
        from qworker.statistics import banner

        return banner(self)


class Worker(WorkController):
    """The worker as a program: with process signals, and logging when it is asked to set that up.

    Args:
        app: The app.
        loglevel: Set up logging at this level (name or number); None leaves it to the caller.
        logfile: File for it, with node name variables; default standard error.
        colorize: Coloured lines; default on a terminal.
        options: As of `WorkController`.
    """

    def __init__(
        self,
        app: Any,
        *,
        loglevel: int | str | None = None,
        logfile: str | os.PathLike[str] | None = None,
        colorize: bool | None = None,
        **options: Any,
    ) -> None:
        self.log_options = {"loglevel": loglevel, "logfile": logfile, "colorize": colorize}
        super().__init__(app, **options)
        self.signal_handlers = SignalHandlers(self)

    def on_before_init(self) -> None:
        """Set up logging, so that what the steps do at their making is logged."""
        if self.log_options["loglevel"] is not None:
            self.app.log.setup(**self.log_options, hostname=self.hostname)
        super().on_before_init()

    def start(self) -> int:
        """Run until told to stop by a signal or command; returns the exit code."""
        self.pid = os.getpid()
        streams = sys.stdout, sys.stderr
        self.signal_handlers.install()
        try:
            if self.app.log.already_setup and self.app.conf.worker_redirect_stdouts:
                self.app.log.redirect_stdouts(self.app.conf.worker_redirect_stdouts_level)
            return super().start()
        finally:
            sys.stdout, sys.stderr = streams
            self.signal_handlers.restore()

    @property
    def restart_requested(self) -> bool:
        """Whether HUP asked for the same program again; the caller does so."""
        return self.signal_handlers.restart_requested


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _exit_code(exc: SystemExit) -> int:
    code = exc.code
    if code is None:
        return EX_OK
    return code if isinstance(code, int) else EX_FAILURE


def _names(names: str | Iterable[str] | None) -> list[str]:
    if names is None:
        return []
    if isinstance(names, str):
        names = names.split(",")
    return [name.strip() for name in names if name.strip()]


def _concurrency(value: int | str | None) -> int:
    if value is None:
        return cpu_count()
    if value == "auto":
        return available_cpus()
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"the concurrency must be a number or 'auto', not {value!r}") from None
    if number < 0:
        raise ImproperlyConfigured(f"the concurrency must not be negative, got {number}")
    return number or cpu_count()


def _autoscale(value: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """`(max, min)`; the order does not matter, one number alone is the maximum."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else list(value)
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        raise ImproperlyConfigured(f"--autoscale takes max,min as two numbers, not {value!r}") from None
    if not 1 <= len(numbers) <= 2 or min(numbers) < 0:
        raise ImproperlyConfigured(f"--autoscale takes max,min as two numbers, not {value!r}")
    return (max(numbers), min(numbers) if len(numbers) == 2 else 0)
