"""The app: the one object that a program makes, and through which it reaches everything else.

It composes the parts (settings, tasks, messaging, results, control) and holds no logic of its own.
What lives in packages above this one (`app.events`, `app.Worker`, `app.Beat`, …) is found by entry point.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from uuid import NAMESPACE_OID, getnode, uuid3, uuid4

from qcore import connections, current, plugins, signals
from qcore.amqp import AMQP
from qcore.backend.making import make_backend
from qcore.calling import Caller
from qcore.canvas import Signature, signature
from qcore.canvas.failing import fail
from qcore.clock import LogicalClock
from qcore.declaring import TaskDeclarations
from qcore.execution.eager import apply_eagerly
from qcore.loading import Loader
from qcore.registry import TaskRegistry
from qcore.results import AsyncResult, EagerResult, ResultSet
from qcore.results.of_app import GroupResults
from qcore.settings import Settings
from qcore.task import Task
from qcore.times import get_zone, utc_now

if TYPE_CHECKING:
    from qcore.async_calls import AsyncCalls

logger = logging.getLogger(__name__)


class App(TaskDeclarations):
    """A q application.

    Args:
        main: name of the main module; names tasks that are defined in `__main__`.
        broker: URL of the broker, or a list of them to fail over to. Default: the embedded SQLite broker.
        backend: URL of the result store. Default: with the embedded broker the embedded store, else none.
        include: modules with tasks that a worker imports.
        set_as_current: become the current app.
        config_source: object, mapping or module name with settings (as `config_from_object`).
        namespace: prefix of the setting names in `config_source`.
        changes: settings as a mapping, as the keywords.
        task_cls: base class of the tasks, or its dotted path.
        autofinalize: finish set-up on first use; otherwise `finalize()` must be called.
        strict_typing: check the arguments of a call before it is sent.
        **settings: any setting by name.

    Raises:
        ImproperlyConfigured: a setting is unknown or of the wrong type; for a configuration source on first use.
    """

    task_cls: Any = Task
    loader_cls: Any = Loader

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: Any = None,
        backend: Any = None,
        include: Any = None,
        set_as_current: bool = True,
        config_source: Any = None,
        namespace: str | None = None,
        changes: Mapping[str, Any] | None = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        strict_typing: bool = True,
        tasks: Any = None,
        loader: Any = None,
        **settings: Any,
    ) -> None:
        self.main = main
        self.clock = LogicalClock()
        self.registry = TaskRegistry()
        self.strict_typing = strict_typing
        self.autofinalize = autofinalize
        self.set_as_current = set_as_current
        self.finalized = False
        self.steps: dict[str, set[Any]] = {"worker": set(), "consumer": set()}
        self.user_options: dict[str, set[Any]] = {"worker": set(), "preload": set(), "beat": set()}
        self.on_configure = signals.Signal("app.on_configure")
        self.on_after_configure = signals.Signal("app.on_after_configure", "source")
        self.on_after_finalize = signals.Signal("app.on_after_finalize")
        self.on_after_fork = signals.Signal("app.on_after_fork")
        self.caller = Caller(self)
        self.amqp = AMQP(self)
        self._lock = threading.RLock()
        self._local = threading.local()
        self._pid = os.getpid()
        self._task_cls = task_cls or self.task_cls
        self._loader = loader
        self._backend: Any = None
        self._extensions: dict[str, Any] = {}
        self._periodic: list[tuple[Any, ...]] = []
        keywords = {**(changes or {}), **settings}
        for name, value in (("broker_url", broker), ("result_backend", backend), ("include", include)):
            if value is not None:
                keywords[name] = value
        self.conf = Settings(
            keywords, on_configure=self._before_configure, on_after_configure=self._after_configure
        )
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        for task in tasks or ():
            self.register_task(task)
        current.register_app(self)
        if set_as_current:
            self.set_current()
        self.on_init()

    def on_init(self) -> None:
        """Hook: the app was made."""

    # --- settings ------------------------------------------------------------------------------

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take settings from an object, mapping or module (or its name), when they are first needed.

        Args:
            silent: a module that cannot be imported is ignored.
            force: read at once.
            namespace: prefix of the names there, such as `Q`.
        """
        self.conf.config_from_object(obj, namespace=namespace or "", silent=silent, force=force)

    def config_from_envvar(self, variable: str, silent: bool = False, force: bool = False) -> None:
        """Take settings from the module that an environment variable names.

        Raises:
            ImproperlyConfigured: the variable is not set, unless `silent`.
        """
        self.conf.config_from_envvar(variable, silent=silent, force=force)

    def config_from_cmdline(self, argv: Iterable[str], namespace: str = "worker") -> None:
        """Take settings from `name=value` arguments."""
        self.conf.config_from_cmdline(argv, namespace)

    def add_defaults(self, source: Any) -> None:
        """Add defaults (a mapping, or a function that returns one) below everything else."""
        self.conf.add_defaults(source)

    def setup_security(self, *args: Any, **kwargs: Any) -> None:
        """Sign messages and check signatures; see `qcore.security.setup_security`."""
        from qcore.security import setup_security

        setup_security(self, *args, **kwargs)

    def _before_configure(self) -> None:
        self.on_configure.send(sender=self)

    def _after_configure(self) -> None:
        self.on_after_configure.send(sender=self, source=self.conf)

    @property
    def timezone(self) -> Any:
        """The zone of schedules and local times."""
        conf = self.conf
        return get_zone(conf.timezone or ("UTC" if conf.enable_utc else "local"))

    def now(self) -> datetime:
        """The current time in the app's zone, aware."""
        return utc_now().astimezone(self.timezone)

    def uses_utc_timezone(self) -> bool:
        """Whether the app's zone is UTC."""
        return str(self.timezone) in ("UTC", "utc")

    # --- calling -------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a call of a task by name; it need not be known here. Options as of `Task.apply_async`.

        Raises:
            kombu.exceptions.OperationalError: the broker could not be reached in time.
        """
        if self.conf.task_always_eager:
            import warnings

            from qcore.errors import AlwaysEagerIgnored

            warnings.warn(
                AlwaysEagerIgnored("task_always_eager has no effect on send_task: the message is sent"),
                stacklevel=2,
            )
        task = self.registry.get_fast(name)
        if task is not None and task.app is self:
            for option in (
                "queue",
                "exchange",
                "routing_key",
                "priority",
                "serializer",
                "compression",
                "expires",
            ):
                value = getattr(task, option)
                if value is not None:
                    options.setdefault(option, value)
        options.setdefault("task", task)
        return cast("AsyncResult[Any]", self.caller.send(name, args, kwargs, **options))

    @cached_property
    def async_calls(self) -> AsyncCalls:
        """Sends the calls that are awaited; loaded at the first, as asyncio is slow to start."""
        from qcore.async_calls import AsyncCalls

        return AsyncCalls(self)

    @contextmanager
    def bulk(self, size: int = 1000) -> Any:
        """Send the calls of this block together, `size` messages in one round trip.

        ```python
        with app.bulk():
            results = [add.delay(i, i) for i in range(10_000)]
        ```
        The messages are out when the block ends.

        Raises:
            kombu.exceptions.OperationalError: the broker could not be reached; calls of this block may be lost.
        """
        with self.amqp.producer.collect(size):
            yield

    def run_eagerly(self, task: Any, args: Any, kwargs: Any, **options: Any) -> EagerResult[Any]:
        """Run a task here and now, through the steps of a worker; see `Task.apply`."""
        return cast("EagerResult[Any]", apply_eagerly(task, args, kwargs, **options))

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """A signature whose tasks belong to this app."""
        kwargs["app"] = self
        return signature(*args, **kwargs)

    def fail_workflow(self, workflow: Any, exc: BaseException) -> None:
        """Record a workflow (a signature or its mapping), and what follows it, as failed without having run."""
        fail(self.signature(workflow), exc)

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Any = (),
        kwargs: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> str:
        """Add an entry to `beat_schedule`; returns its key.

        Args:
            schedule: seconds, timedelta or a schedule of qbeat.
            sig: signature of the task.
            name: key of the entry; default the text of the signature.
        """
        key = name or repr(sig)
        entry = (key, schedule, sig, tuple(args), dict(kwargs or {}), options)
        if self.finalized:
            self._store_periodic(*entry)
        else:
            self._periodic.append(entry)
        return key

    def _store_periodic(
        self,
        key: str,
        schedule: Any,
        sig: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        entry = {
            "schedule": schedule,
            "task": sig.task,
            "args": (*args, *sig.args),
            "kwargs": {**sig.kwargs, **kwargs},
            "options": {**{k: v for k, v in sig.options.items() if k != "task_id"}, **options},
        }
        self.conf.beat_schedule = {**(self.conf.beat_schedule or {}), key: entry}

    # --- results -------------------------------------------------------------------------------

    @property
    def backend(self) -> Any:
        """The result store of this app."""
        backend = self._backend
        if backend is None:
            with self._lock:
                if self._backend is None:
                    self._backend = self._make_backend()
                backend = self._backend
        return backend

    def backend_if_used(self) -> Any:
        """The result store if anything has used it in this process, else None."""
        return self._backend

    def _make_backend(self) -> Any:
        return make_backend(self, self.conf.result_backend)

    def AsyncResult(self, task_id: str, backend: Any = None, **kwargs: Any) -> AsyncResult[Any]:
        """The result of the call with that id."""
        return AsyncResult(task_id, backend=backend, app=self, **kwargs)

    @cached_property
    def GroupResult(self) -> GroupResults:
        """Makes and restores the results of groups: `app.GroupResult(id, results)`, `app.GroupResult.restore(id)`."""
        return GroupResults(self)

    def ResultSet(self, results: Any, **kwargs: Any) -> ResultSet[Any]:
        """Any results together."""
        return ResultSet(results, app=self, **kwargs)

    # --- connections ---------------------------------------------------------------------------

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """A kombu Connection for consuming."""
        return connections.connection_for_read(self.conf, url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """A kombu Connection for publishing."""
        return connections.connection_for_write(self.conf, url, **options)

    connection = connection_for_write
    broker_connection = connection_for_write

    @cached_property
    def pool(self) -> Any:
        """Pool of kombu Connections; `with app.pool.acquire(block=True) as connection`."""
        return connections.connection_pool(self.conf)

    @cached_property
    def producer_pool(self) -> Any:
        """Pool of kombu Producers."""
        return connections.producer_pool(self.conf)

    @contextmanager
    def connection_or_acquire(self, connection: Any = None, pool: bool = True) -> Any:
        """`connection` itself, else one from the pool, or a new one."""
        if connection is not None:
            yield connection
        elif pool:
            with self.pool.acquire(block=True) as pooled:
                yield pooled
        else:
            with self.connection_for_write() as fresh:
                yield fresh

    @contextmanager
    def producer_or_acquire(self, producer: Any = None) -> Any:
        """`producer` itself, else one from the pool."""
        if producer is not None:
            yield producer
        else:
            with self.producer_pool.acquire(block=True) as pooled:
                yield pooled

    @property
    def oid(self) -> str:
        """Reply address of this process and thread (W1-15)."""
        local, pid = self._local, os.getpid()
        if getattr(local, "pid", None) != pid:
            local.pid = pid
            name = f"{getnode():x}-{pid:x}-{threading.get_ident():x}-{id(self):x}-{uuid4().hex}"
            local.oid = str(uuid3(NAMESPACE_OID, name))
        return cast("str", local.oid)

    thread_oid = oid

    @cached_property
    def control(self) -> Any:
        """Remote control of workers."""
        from qcore.control import Control

        return Control(self)

    @cached_property
    def log(self) -> Any:
        """Logging set-up for workers and commands."""
        from qcore.logging import Logging

        return Logging(self)

    # --- loading -------------------------------------------------------------------------------

    @cached_property
    def loader(self) -> Any:
        """Imports the modules with tasks."""
        return (self._loader or self.loader_cls)(self)

    def autodiscover_tasks(
        self, packages: Any = None, related_name: str | None = "tasks", force: bool = False
    ) -> None:
        """Import `related_name` of each package when modules are imported (or now, with `force`).

        Args:
            packages: names, or a function that returns them.
        """
        self.loader.autodiscover_tasks(packages, related_name, force=force)

    # --- life ----------------------------------------------------------------------------------

    def set_current(self) -> None:
        """Be the current app of this thread."""
        current.set_current_app(self)

    def set_default(self) -> None:
        """Be the current app of threads that have not set one."""
        current.set_default_app(self)

    def after_fork(self) -> None:
        """Forget the connections of the parent process; a forked child calls it first."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self.amqp.after_fork()
        for name in ("pool", "producer_pool", "control"):
            self.__dict__.pop(name, None)
        self.on_after_fork.send(sender=self)

    def close(self) -> None:
        """Close connections and leave the globals; for programs that make many apps."""
        self.amqp.close()
        for name in ("pool", "producer_pool"):
            pool = self.__dict__.pop(name, None)
            if pool is not None:
                pool.force_close_all()
        if self._backend is not None:
            self._backend.close()
        current.forget_app(self)

    def __enter__(self) -> App:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """Attributes that packages above this one provide (`events`, `Worker`, `Beat`, …)."""
        if name.startswith("_") or name in ("conf",):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        extensions = self.__dict__.get("_extensions")
        if extensions is None:
            raise AttributeError(name)
        if name not in extensions:
            extensions[name] = self._extension(name)
        return extensions[name]

    def _extension(self, name: str) -> Any:
        if name in plugins.available("qcore.extensions"):
            factory: Any = plugins.load("qcore.extensions", name)
            return factory(self)
        package = _HOMES.get(name)
        if package:
            raise AttributeError(f"app.{name} needs the package {package}: pip install {package}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'}:0x{id(self):x}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_app, (type(self), self.main, dict(self.conf.changes))


_HOMES = {
    "events": "qevents",
    "Worker": "qworker",
    "WorkController": "qworker",
    "worker_main": "qworker",
    "Beat": "qbeat",
    "start": "qcli",
}


def _unpickle_app(cls: type[App], main: str | None, changes: dict[str, Any]) -> App:
    return cls(main, changes=changes, set_as_current=False)


def app_or_default(app: App | None = None) -> App:
    """The given app, else the current one; with `Q_TRACE_APP` in the environment a missing one is an error."""
    if app is not None:
        return app
    if os.environ.get("Q_TRACE_APP"):
        raise RuntimeError(
            "the app chain is broken: an app should have been passed here (Q_TRACE_APP is set)"
        )
    return cast("App", current.get_current_app())


def _default_app() -> App:
    return App("default", set_as_current=False)


current.set_default_factory(_default_app)

__all__ = ["App", "LogicalClock", "app_or_default"]
