"""How an app gets its tasks: the decorator, task classes, names, and the end of set-up."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast, overload

from qcore import current, signals
from qcore.autoretry import add_autoretry
from qcore.builtins import register_builtins
from qcore.errors import ImproperlyConfigured
from qcore.registry import TaskRegistry
from qcore.settings import Settings
from qcore.task import AsyncTask, Task, make_task

P = ParamSpec("P")
R = TypeVar("R")


class TaskDeclarations:
    """The part of an app that knows its tasks."""

    main: str | None
    conf: Settings
    registry: TaskRegistry
    finalized: bool
    autofinalize: bool
    on_after_finalize: signals.Signal
    _task_cls: Any
    _periodic: list[tuple[Any, ...]]
    _lock: threading.RLock

    def _store_periodic(self, *entry: Any) -> None:
        """Put an entry into the beat schedule."""

    @overload
    def task(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def task(self, fun: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, *, bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...

    @overload
    def task(self, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of a function: `@app.task` or `@app.task(**options)`.

        Args:
            name: default `module.function`.
            bind: give the task as first argument.
            base: base class.
            shared: let other apps have the task as well (default).
            lazy: accepted for the field's API; set-up always waits for first use.
            **options: attributes of the task (`acks_late`, `max_retries`, `rate_limit`, …).
        """
        if not args:
            return lambda function: self._decorated(function, dict(options))
        if len(args) > 1 or not callable(args[0]):
            raise TypeError("@app.task takes a function; give options by keyword")
        return self._decorated(args[0], dict(options))

    def _decorated(self, fun: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
        options.pop("lazy", None)
        shared = options.pop("shared", True)
        task = self.register_function(fun, **options)
        if shared:
            name = task.name  # the closure must not keep this app alive
            current.add_shared_task(lambda app: app.adopt(name, fun, options))
        return task

    def register_function(
        self,
        fun: Callable[..., Any],
        *,
        name: str | None = None,
        bind: bool = False,
        base: Any = None,
        shared: bool = True,
        **options: Any,
    ) -> Task[..., Any]:
        """The task of this app whose body is `fun`; a second one of the same name is the first one."""
        name = name or self.gen_task_name(fun.__name__, fun.__module__)
        existing = self.registry.get_fast(name)
        if existing is not None:
            return cast("Task[..., Any]", existing)
        if options.get("pydantic"):
            from qcore.models import wrap_arguments

            context = options.get("pydantic_context")
            fun = wrap_arguments(
                fun, name=name, app=self, strict=options.get("pydantic_strict", False), context=context
            )
        task = make_task(fun, base or self.Task, self, bind=bind, options={**options, "name": name})
        self._add(task)
        return task

    def adopt(self, name: str, fun: Callable[..., Any], options: Mapping[str, Any]) -> None:
        """Have a task of another app, too (tasks are shared by default)."""
        if name not in self.registry:
            self.register_function(fun, **{**options, "name": name})

    def register_task(self, task: Any, **options: Any) -> Any:
        """Add an instance (or class) of a `Task` subclass.

        Raises:
            ImproperlyConfigured: it has no `run`.
        """
        task = task() if inspect.isclass(task) else task
        if not callable(getattr(task, "run", None)):
            raise ImproperlyConfigured(f"{type(task).__name__} needs a method run() to be a task")
        if not task.name:
            task.name = self.gen_task_name(type(task).__name__, type(task).__module__)
        for option, value in options.items():
            setattr(task, option, value)
        if task.autoretry_for:
            add_autoretry(task)
        task.app = self
        self._add(task)
        return task

    def _add(self, task: Any) -> None:
        self.registry.register(task)
        if self.finalized:
            task.bind(self)

    def gen_task_name(self, name: str, module: str) -> str:
        """The name of a task that was given none: `module.name`; `__main__` becomes the app's `main`."""
        if self.main and module == "__main__":
            module = self.main
        elif module == "__main__" and not self.main:
            module = "__main__"
        return f"{module}.{name}" if module else name

    @cached_property
    def Task(self) -> Any:
        """Base class of the tasks of this app."""
        cls = self._task_cls
        if isinstance(cls, str):
            module, _, name = cls.replace(":", ".").rpartition(".")
            cls = getattr(import_module(module), name)
        return cls

    @property
    def tasks(self) -> TaskRegistry:
        """The registry; reading it finishes set-up."""
        if not self.finalized:
            self.finalize(auto=True)
        return self.registry

    def finalize(self, auto: bool = False) -> None:
        """Finish set-up: built-in and shared tasks join, every task is bound to its settings.

        Raises:
            RuntimeError: called implicitly although `autofinalize` is off.
        """
        if self.finalized:
            return
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError(
                    "the app is not finalized: call app.finalize() first (autofinalize is off)"
                )
            self.finalized = True
            register_builtins(self)
            for register in current.shared_task_registrations():
                register(self)
            for task in list(self.registry.values()):
                task.bind(self)
            for entry in self._periodic:
                self._store_periodic(*entry)
            self._periodic.clear()
            self.on_after_finalize.send(sender=self)

    @property
    def current_task(self) -> Any:
        """The task that runs here, or None."""
        return current.get_current_task()

    @property
    def current_worker_task(self) -> Any:
        """The task that the worker started here, or None."""
        return current.get_current_worker_task()
