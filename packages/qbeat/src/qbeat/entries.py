"""Entries from the setting `beat_schedule`, checked before anything is sent."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from qbeat.entry import ScheduleEntry
from qcore.errors import ImproperlyConfigured

FIELDS = (
    "task",
    "schedule",
    "args",
    "kwargs",
    "options",
    "relative",
    "last_run_at",
    "total_run_count",
)


def from_config(
    config: Mapping[str, Any] | None, app: Any = None, entry_class: type[ScheduleEntry] = ScheduleEntry
) -> dict[str, ScheduleEntry]:
    """The entries that `config`, a mapping of entry name to fields, describes.

    Raises:
        ImproperlyConfigured: A field is missing, unknown or makes no sense; the text names entry and field.
    """
    return {name: make_entry(name, fields, app, entry_class) for name, fields in (config or {}).items()}


def make_entry(
    name: str, fields: Any, app: Any = None, entry_class: type[ScheduleEntry] = ScheduleEntry
) -> ScheduleEntry:
    """The entry called `name` from its fields; an entry is taken as it is.

    Raises:
        ImproperlyConfigured: A field is missing, unknown or makes no sense.
    """
    if isinstance(fields, ScheduleEntry):
        fields.app = app
        return fields
    if not isinstance(fields, Mapping):
        raise _error(name, f"it must be a mapping with task and schedule, not {fields!r}")
    given = {field: value for field, value in fields.items() if field not in ("name", "app")}
    _check_fields(name, given)
    try:
        return entry_class(name=name, app=app, **given)
    except (TypeError, ValueError) as exc:
        raise _error(name, str(exc)) from exc


def _check_fields(name: str, given: Mapping[str, Any]) -> None:
    for field in given:
        if field not in FIELDS:
            close = difflib.get_close_matches(str(field), FIELDS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(FIELDS)}"
            raise _error(name, f"there is no field {field!r}{hint}")
    for field in ("task", "schedule"):
        if given.get(field) is None:
            raise _error(name, f"the field {field!r} is missing")
    if not isinstance(given["task"], str):
        raise _error(name, f"task must be the name of a task, not {given['task']!r}")
    if isinstance(given.get("args"), (str, bytes)):
        raise _error(
            name, f"args must be a list or tuple, not {given['args']!r} (a tuple of one needs its comma)"
        )


def _error(name: str, text: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"beat_schedule[{name!r}]: {text}")
