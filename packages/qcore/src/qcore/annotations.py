"""`task_annotations`: attributes of tasks that the settings change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def annotations_for(source: Any, task: Any) -> list[Mapping[str, Any]]:
    """What one source (mapping, or object with `annotate`) says of `task`; the general part first."""
    if isinstance(source, Mapping):
        return [found for found in (source.get("*"), source.get(task.name)) if found]
    found = []
    for method in ("annotate_any", "annotate"):
        if hasattr(source, method):
            value = getattr(source, method)(*(() if method == "annotate_any" else (task,)))
            if value:
                found.append(value)
    return found
