"""kombu at the edge: imported on first use, as it is slow to start, and untyped for the type checker."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def kombu(module: str = "kombu") -> Any:
    """The module `kombu`, one below it or one that needs it, as `kombu("kombu.pidbox")`."""
    return import_module(module)
