"""Scheduler classes by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from qbeat.schedulers.base import Scheduler
from qcore import plugins
from qcore.errors import ImproperlyConfigured

GROUP = "qbeat.schedulers"


def load_scheduler(name: str | type[Scheduler]) -> type[Scheduler]:
    """The scheduler class called `name`: of the entry points `qbeat.schedulers`, or a path `module:Class`.

    Raises:
        ImproperlyConfigured: There is none.
    """
    if not isinstance(name, str):
        return name
    if ":" not in name and "." not in name:
        return cast("type[Scheduler]", plugins.load(GROUP, name))
    module, _, attribute = name.replace(":", ".").rpartition(".")
    try:
        found: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ImproperlyConfigured(
            f"cannot load the scheduler {name!r} ({exc}): give it as module:Class, or one of "
            f"{', '.join(plugins.available(GROUP))}"
        ) from exc
    return cast("type[Scheduler]", found)
