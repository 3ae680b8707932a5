"""The convenience globals: the current app and the current task of this thread or asyncio task.

Everything else in the family gets its collaborators through `__init__`; only `current_app`,
`current_task` and `shared_task` look here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any
from weakref import WeakSet

_default_app: list[Any] = []
_app: ContextVar[Any] = ContextVar("qcore_current_app", default=None)
_running: ContextVar[tuple[tuple[Any, Any], ...]] = ContextVar("qcore_running", default=())
_default_factory: list[Callable[[], Any]] = []
_on_app_finalizers: list[Callable[[Any], Any]] = []
_apps: WeakSet[Any] = WeakSet()


def set_default_factory(factory: Callable[[], Any]) -> None:
    """Tell how the fallback app is made when a program asks for the current one and has none."""
    _default_factory[:] = [factory]


def set_default_app(app: Any) -> None:
    """Make `app` the current one in every thread that has not set its own."""
    _default_app[:] = [app]


def set_current_app(app: Any) -> Token[Any]:
    """Make `app` the current one of this thread or asyncio task; the token undoes it."""
    if not _default_app:
        set_default_app(app)
    return _app.set(app)


def reset_current_app(token: Token[Any]) -> None:
    """Undo `set_current_app`."""
    _app.reset(token)


def forget_app(app: Any) -> None:
    """Drop a closed app from the globals."""
    _apps.discard(app)
    if _default_app and _default_app[0] is app:
        _default_app.clear()
    if _app.get() is app:
        _app.set(None)


def get_current_app() -> Any:
    """The app of this context, else the default app, else a fallback app that uses environment and `qconfig`."""
    app = _app.get()
    if app is not None:
        return app
    if not _default_app:
        set_default_app(_default_factory[0]())
    return _default_app[0]


def push_task(task: Any, request: Any) -> Token[tuple[tuple[Any, Any], ...]]:
    """Enter `task` with the request of this execution; the token leaves it again."""
    return _running.set((*_running.get(), (task, request)))


def pop_task(token: Token[tuple[tuple[Any, Any], ...]]) -> None:
    """Leave the task entered with `push_task`."""
    _running.reset(token)


def push_request(task: Any, request: Any) -> None:
    """Enter without a token; `pop_request` leaves."""
    _running.set((*_running.get(), (task, request)))


def pop_request(task: Any) -> None:
    """Leave the innermost execution of `task`."""
    running = _running.get()
    for position in range(len(running) - 1, -1, -1):
        if running[position][0] is task:
            _running.set(running[:position] + running[position + 1 :])
            return
    raise LookupError(f"{task!r} does not run here")


def get_request(task: Any) -> Any:
    """The request of the innermost execution of `task` in this context, or None."""
    for running, request in reversed(_running.get()):
        if running is task:
            return request
    return None


def get_current_task() -> Any:
    """The task that runs in this context (the innermost one when tasks call each other), or None."""
    running = _running.get()
    return running[-1][0] if running else None


def get_current_worker_task() -> Any:
    """The task that the worker started in this context (the outermost one), or None."""
    running = _running.get()
    return running[0][0] if running else None


def get_worker_request() -> Any:
    """The request of the outermost task of this context, or None."""
    running = _running.get()
    return running[0][1] if running else None


def register_app(app: Any) -> None:
    """Let shared tasks, those declared already and those to come, join `app`."""
    _apps.add(app)


def add_shared_task(register: Callable[[Any], Any]) -> None:
    """Call `register(app)` when an app is finalized, at once for those that are."""
    _on_app_finalizers.append(register)
    for app in list(_apps):
        if app.finalized:
            register(app)


def shared_task_registrations() -> list[Callable[[Any], Any]]:
    """Every registration made with `add_shared_task`."""
    return list(_on_app_finalizers)
