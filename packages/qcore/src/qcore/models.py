"""Pydantic models as arguments and results of tasks (`@app.task(pydantic=True)`); pydantic is optional."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from qcore.errors import ImproperlyConfigured


def _base_model() -> Any:
    try:
        from pydantic import BaseModel
    except ImportError as exc:
        raise ImproperlyConfigured(
            "a task with pydantic=True needs the package pydantic: pip install pydantic"
        ) from exc
    return BaseModel


def _model_of(annotation: Any) -> Any:
    """The model that `annotation` is, also as Optional; None when it is none."""
    base = _base_model()
    if get_origin(annotation) in (Union, UnionType):
        members = [a for a in get_args(annotation) if a is not type(None)]
        if len(members) != 1 or len(members) == len(get_args(annotation)):
            return None
        annotation = members[0]
    return annotation if inspect.isclass(annotation) and issubclass(annotation, base) else None


def wrap_arguments(
    fun: Callable[..., Any],
    *,
    name: str,
    app: Any,
    strict: bool = False,
    context: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """`fun` with its model arguments built from the mappings that arrive in messages.

    Raises (when called):
        pydantic.ValidationError: a mapping does not fit its model.
    """
    hints = get_type_hints(fun)
    models = {arg: model for arg, hint in hints.items() if arg != "return" and (model := _model_of(hint))}
    signature = inspect.signature(fun)
    validation = {"celery_app": app, "celery_task_name": name, **(context or {})}

    def validated(args: Any, kwargs: Any) -> inspect.BoundArguments:
        bound = signature.bind(*args, **kwargs)
        for arg, value in bound.arguments.items():
            model = models.get(arg)
            if model is not None and value is not None:
                bound.arguments[arg] = model.model_validate(value, strict=strict, context=validation)
        return bound

    if inspect.iscoroutinefunction(fun):

        @wraps(fun)
        async def arun(*args: Any, **kwargs: Any) -> Any:
            bound = validated(args, kwargs)
            return await fun(*bound.args, **bound.kwargs)

        return arun

    @wraps(fun)
    def run(*args: Any, **kwargs: Any) -> Any:
        bound = validated(args, kwargs)
        return fun(*bound.args, **bound.kwargs)

    return run


def dump_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any] | None
) -> tuple[list[Any], dict[str, Any]]:
    """Models among the arguments as plain mappings."""
    base, keywords = _base_model(), {"mode": "json", **(options or {})}

    def dump(value: Any) -> Any:
        return value.model_dump(**keywords) if isinstance(value, base) else value

    return [dump(a) for a in args], {k: dump(v) for k, v in kwargs.items()}


def dump_result(task: Any, value: Any) -> Any:
    """A returned model of the annotated class as a plain mapping; anything else as it is (4PYD-05)."""
    fun = getattr(task, "__wrapped_fun__", None)
    wanted = _model_of(get_type_hints(fun).get("return")) if fun is not None else None
    if wanted is not None and isinstance(value, wanted):
        return value.model_dump(**{"mode": "json", **(task.pydantic_dump_kwargs or {})})
    return value
