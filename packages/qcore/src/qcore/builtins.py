"""The tasks that every app has, under the names that they have on the wire.

A worker runs `celery.map`, `celery.starmap`, `celery.accumulate`, `celery.chord_unlock` and `celery.backend_cleanup`;
the other names stand for workflow primitives, so that a primitive received by name can be started too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qcore.canvas import chord, group, maybe_signature


def register_builtins(app: Any) -> None:
    """Add the built-in tasks to `app`."""
    for name, body, bind, options in _BUILTINS:
        if name not in app.registry:
            app.register_function(body, name=name, bind=bind, shared=False, typing=False, **options)


def _map(task: Any, it: Any) -> list[Any]:
    """Call the task with each item."""
    body = _body(task)
    return [body(item) for item in it]


def _starmap(task: Any, it: Any) -> list[Any]:
    """Call the task with each item unpacked."""
    body = _body(task)
    return [body(*item) for item in it]


def _body(task: Any) -> Callable[..., Any]:
    signature = maybe_signature(task)
    return lambda *args: signature.clone()(*args)


def _accumulate(*args: Any, **kwargs: Any) -> Any:
    """The arguments as a list, or the one at `index`."""
    index = kwargs.get("index")
    return args[index] if index is not None else args


def _backend_cleanup(self: Any) -> None:
    """Remove expired results; beat sends this once a day."""
    self.app.backend.cleanup()


def _chord_unlock(
    self: Any,
    group_id: str,
    callback: Any,
    interval: float | None = None,
    max_retries: int | None = None,
    result: Any = None,
    Result: Any = None,
    GroupResult: Any = None,
    result_from_tuple: Any = None,
    **_: Any,
) -> None:
    """Look whether every member of a chord's header is ready, then start the body; retried until it is."""
    from qcore.backend.chords import unlock

    unlock(self, group_id, callback, interval=interval, max_retries=max_retries, result=result)


def _group(
    self: Any, tasks: Any, result: Any = None, group_id: Any = None, partial_args: Any = (), **_: Any
) -> Any:
    """Start a group that was received by name."""
    members = [maybe_signature(task, app=self.app).clone(tuple(partial_args)) for task in tasks]
    return group(members, app=self.app).apply_async(add_to_parent=True).as_tuple()


def _chain(self: Any, tasks: Any = (), *args: Any, **kwargs: Any) -> Any:
    """Start a chain that was received by name."""
    chain = maybe_signature(
        {"task": "celery.chain", "args": (), "kwargs": {"tasks": list(tasks)}, "options": {}, "subtask_type": "chain",
         "immutable": False}, app=self.app,
    )  # fmt: skip
    return chain.apply_async(args).as_tuple()


def _chord(self: Any, header: Any, body: Any, partial_args: Any = (), **_: Any) -> Any:
    """Start a chord that was received by name."""
    tasks = maybe_signature(header, app=self.app)
    return chord(tasks, app=self.app)(maybe_signature(body, app=self.app), *partial_args).as_tuple()


def _chunks(self: Any, task: Any, it: Any, n: int) -> Any:
    """Start chunks that were received by name."""
    return maybe_signature(task, app=self.app).type.chunks(it, n).apply_async().as_tuple()


_Builtin = tuple[str, Callable[..., Any], bool, dict[str, Any]]
_BUILTINS: tuple[_Builtin, ...] = (
    ("celery.map", _map, False, {}),
    ("celery.starmap", _starmap, False, {}),
    ("celery.accumulate", _accumulate, False, {}),
    ("celery.backend_cleanup", _backend_cleanup, True, {}),
    (
        "celery.chord_unlock",
        _chord_unlock,
        True,
        {"max_retries": None, "default_retry_delay": 1, "ignore_result": True},
    ),
    ("celery.group", _group, True, {"trail": True}),
    ("celery.chain", _chain, True, {}),
    ("celery.chord", _chord, True, {"ignore_result": False}),
    ("celery.chunks", _chunks, True, {}),
)
