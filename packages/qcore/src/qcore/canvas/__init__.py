"""Workflows: calls that are composed before they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .chains import chain
from .chords import chord
from .groups import group
from .maps import chunks, xmap, xstarmap
from .signatures import Signature, as_signature
from .stamping import StampingVisitor

__all__ = [
    "Signature",
    "StampingVisitor",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "signature",
    "xmap",
    "xstarmap",
]


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature[Any]:
    """A signature of a task, of its name, or of a mapping that came over the wire.

    `signature(task, args, kwargs, **options)`.
    """
    app = kwargs.get("app")
    if isinstance(varies, Signature):
        copy = varies.clone()
        if app is not None and copy._app is None:
            copy._app = app
        return copy
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=app)
    return Signature(varies, *args, **kwargs)


def maybe_signature(value: Any, app: Any = None, clone: bool = False) -> Any:
    """The signature that `value` is or stands for; anything that is no mapping, such as None, as it is.

    Args:
        value: a signature, a mapping of one, or something else.
        app: app of a signature that has none.
        clone: return a copy of a signature.
    """
    if not isinstance(value, Mapping):
        return value
    found = as_signature(value, app)
    return found.clone() if clone and found is value else found
