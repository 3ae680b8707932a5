"""The steps of the worker blueprint: Timer, Hub, Pool, StateDB, Autoscaler, Beat, Consumer."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from qcore import plugins
from qcore.edge import kombu
from qcore.errors import ImproperlyConfigured
from qcore.utils.nodes import expand_path
from qworker import bootsteps
from qworker.autoscale import Autoscaler as AutoscalerBase
from qworker.pools.contract import PoolOptions
from qworker.reports import PoolReports
from qworker.revoked import StateDB as StateFile
from qworker.runner import make_runner
from qworker.strategy import load_class

if TYPE_CHECKING:
    from qworker.worker import WorkController

logger = logging.getLogger(__name__)

STATE_SAVE_SECONDS = 180.0
POOL_JOIN_SECONDS = 10.0


class Timer(bootsteps.Step):
    """Makes `worker.timer`: functions called in the loop at some time."""

    def create(self, w: WorkController) -> None:
        """Make it; the setting `worker_timer` names another class."""
        timer_class = load_class(w.app.conf.worker_timer, kombu("kombu.asynchronous.timer").Timer)
        w.timer = timer_class(max_interval=w.app.conf.worker_timer_precision)


class Hub(bootsteps.StartStopStep):
    """Makes `worker.hub`: the loop over file descriptors and timers."""

    requires = (Timer,)

    def create(self, w: WorkController) -> Any:
        """Make it."""
        asynchronous = kombu("kombu.asynchronous")
        w.hub = asynchronous.Hub(w.timer)
        asynchronous.set_event_loop(w.hub)
        w.wakeup.register(w.hub)
        return self

    def start(self, w: WorkController) -> None:
        """Nothing: the consumer's last step runs it."""

    def stop(self, w: WorkController) -> None:
        """Close it."""
        w.wakeup.close()
        w.hub.close()
        kombu("kombu.asynchronous").set_event_loop(None)


class Pool(bootsteps.StartStopStep):
    """Makes `worker.pool`, by the name that `--pool` or `worker_pool` gives."""

    requires = (Hub,)

    def create(self, w: WorkController) -> Any:
        """Make it.

        Raises:
            ImproperlyConfigured: there is no such pool, or it cannot do what an option asks.
        """
        pool_class = find_pool(w.pool_name)
        conf = w.app.conf
        options = PoolOptions(
            max_tasks_per_child=w.max_tasks_per_child,
            max_memory_per_child_kib=w.max_memory_per_child,
            proc_alive_timeout=conf.worker_proc_alive_timeout,
            name=f"qcli worker: {w.hostname}",
        )
        w.reports = PoolReports(w)
        factory = partial(make_runner, w.app, w.hostname, w.child_setup)
        refuse_limits(w, pool_class)
        w.pool = pool_class(factory, w.min_concurrency, w.reports, options)
        return self

    def start(self, w: WorkController) -> None:
        """Start the children."""
        w.pool.register_with_event_loop(w.hub)
        w.pool.start()

    def stop(self, w: WorkController) -> None:
        """Let what runs finish, and end the children."""
        w.pool.close()
        if not w.pool.join(POOL_JOIN_SECONDS):
            logger.warning("Pool processes did not end in %s seconds: they are killed.", POOL_JOIN_SECONDS)
            w.pool.terminate()

    def terminate(self, w: WorkController) -> None:
        """End the children now."""
        w.pool.terminate()

    def info(self, w: WorkController) -> dict[str, Any]:
        """The `pool` part of the statistics."""
        if w.pool is None:
            return {"pool": "N/A"}
        info = dict(w.pool.info())
        hard, soft = w.default_limits
        info.setdefault("timeouts", [soft or 0, hard or 0])
        info.setdefault("max-concurrency", w.pool.num_processes)
        info.setdefault("max-tasks-per-child", w.max_tasks_per_child or "N/A")
        info.setdefault("put-guarded-by-semaphore", False)
        return {"pool": info}


class StateDB(bootsteps.Step):
    """Makes `worker.statedb`, when `--statedb` or `worker_state_db` names a file."""

    requires = (Timer,)

    def __init__(self, w: WorkController, **kwargs: Any) -> None:
        self.enabled = bool(w.statedb_path)
        w.statedb = None
        super().__init__(w, **kwargs)

    def create(self, w: WorkController) -> None:
        """Open the file and take over what it holds."""
        w.statedb = StateFile(expand_path(w.statedb_path, w.hostname, 0), w.state)
        w.statedb.open()
        w.timer.call_repeatedly(STATE_SAVE_SECONDS, w.statedb.sync)
        w.on_stopped.append(w.statedb.close)


Statedb = StateDB


class Autoscaler(bootsteps.StartStopStep):
    """Makes `worker.autoscaler`, when `--autoscale` is given."""

    requires = (Pool, Timer)
    conditional = True

    def __init__(self, w: WorkController, **kwargs: Any) -> None:
        self.enabled = w.autoscale is not None
        w.autoscaler = None
        super().__init__(w, **kwargs)

    def create(self, w: WorkController) -> Any:
        """Make it; the setting `worker_autoscaler` names another class."""
        scaler_class = load_class(w.app.conf.worker_autoscaler, AutoscalerBase)
        w.autoscaler = scaler_class(w, w.max_concurrency, w.min_concurrency)
        return self

    def start(self, w: WorkController) -> None:
        """Start watching the load."""
        w.autoscaler.start()

    def stop(self, w: WorkController) -> None:
        """Stop."""
        w.autoscaler.stop()

    def info(self, w: WorkController) -> dict[str, Any]:
        """The `autoscaler` part of the statistics."""
        return {"autoscaler": w.autoscaler.info()} if w.autoscaler is not None else {}


class Beat(bootsteps.StartStopStep):
    """Runs the beat inside the worker (`-B`)."""

    label = "Beat"
    conditional = True
    requires = (Pool,)

    def __init__(self, w: WorkController, **kwargs: Any) -> None:
        self.enabled = bool(w.beat)
        w.beat_service = None
        super().__init__(w, **kwargs)

    def create(self, w: WorkController) -> Any:
        """Make it.

        Raises:
            MissingPackageError: the package qbeat is not installed.
        """
        w.beat_service = w.app.Beat(schedule=w.schedule, scheduler=w.scheduler, hostname=w.hostname).embedded(
            thread=w.pool.name != "prefork"
        )
        return w.beat_service


class Consumer(bootsteps.StartStopStep):
    """Makes `worker.consumer`; starting it blocks until the worker stops."""

    last = True

    def create(self, w: WorkController) -> Any:
        """Make it; the setting `worker_consumer` names another class."""
        consumer_class = load_class(w.app.conf.worker_consumer, None)
        w.consumer = consumer_class(w, on_ready=w.on_consumer_ready, **w.step_options)
        return w.consumer


def find_pool(name: Any) -> Any:
    """The pool class called `name`: an entry point, `module:Class`, or the class itself.

    Raises:
        ImproperlyConfigured: there is none; the text lists those that there are.
    """
    if not isinstance(name, str):
        return name
    found = plugins.find("qworker.pools", name)
    if found is not None:
        return found
    if ":" in name or "." in name:
        return load_class(name, None)
    known = ", ".join(plugins.available("qworker.pools"))
    raise ImproperlyConfigured(
        f"there is no pool called {name!r}; use one of {known}, or the path of a class"
    )


def refuse_limits(w: WorkController, pool_class: Any) -> None:
    """Raise when the worker's time limits cannot be kept by the pool."""
    capabilities = pool_class.capabilities
    hard, soft = w.default_limits
    if hard and not capabilities.hard_limit:
        raise ImproperlyConfigured(
            f"the {pool_class.name} pool cannot keep a hard time limit ({hard} s): use another pool (prefork), or take "
            "task_time_limit and --time-limit away"
        )
    if soft and not capabilities.soft_limit:
        raise ImproperlyConfigured(
            f"the {pool_class.name} pool cannot keep a soft time limit ({soft} s): use another pool (prefork), or take "
            "task_soft_time_limit and --soft-time-limit away"
        )
