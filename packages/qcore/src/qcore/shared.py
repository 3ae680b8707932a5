"""`shared_task`, `current_app`, `current_task`: for code that has no app of its own at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from qcore import current
from qcore.task import Task

P = ParamSpec("P")
R = TypeVar("R")


class _Proxy:
    """Stands for whatever `find` returns at the time."""

    __slots__ = ("_find", "_what")

    def __init__(self, find: Callable[[], Any], what: str) -> None:
        object.__setattr__(self, "_find", find)
        object.__setattr__(self, "_what", what)

    def _get_current_object(self) -> Any:
        """The object itself."""
        return self._find()

    def __getattr__(self, name: str) -> Any:
        target = self._find()
        if target is None:
            raise AttributeError(f"there is no {self._what} here, so it has no attribute {name!r}")
        return getattr(target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._find(), name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._find()(*args, **kwargs)

    def __bool__(self) -> bool:
        return self._find() is not None

    def __eq__(self, other: object) -> bool:
        return bool(self._find() == other)

    def __hash__(self) -> int:
        return hash(self._find())

    def __repr__(self) -> str:
        return repr(self._find())


current_app: Any = _Proxy(current.get_current_app, "current app")
current_task: Any = _Proxy(current.get_current_task, "current task")


class SharedTask(_Proxy):
    """A task that every app has; stands for the one of the current app."""

    __slots__ = ()


@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def shared_task(fun: Any = None, /, **options: Any) -> Any:
    """Make a task of a function without an app: every app that is finalized, now or later, gets it.

    Takes the options of `App.task`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        name = options.get("name")

        def register(app: Any) -> Any:
            return app.register_function(function, **options)

        current.add_shared_task(register)

        def find() -> Any:
            app = current.get_current_app()
            key = name or app.gen_task_name(function.__name__, function.__module__)
            return app.tasks[key]

        return SharedTask(find, f"shared task {function.__name__}")

    return decorate(fun) if fun is not None else decorate
