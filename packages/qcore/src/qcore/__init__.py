"""Apps, tasks, workflows and results of the q task queue, on Celery's wire protocol.

```python
from qcore import App

app = App("hello")


@app.task
def add(x: int, y: int) -> int:
    return x + y
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "26.1.0"

if TYPE_CHECKING:
    from qcore.app import App as App
    from qcore.app import app_or_default as app_or_default
    from qcore.canvas import Signature as Signature
    from qcore.canvas import chain as chain
    from qcore.canvas import chord as chord
    from qcore.canvas import chunks as chunks
    from qcore.canvas import group as group
    from qcore.canvas import maybe_signature as maybe_signature
    from qcore.canvas import signature as signature
    from qcore.canvas import xmap as xmap
    from qcore.canvas import xstarmap as xstarmap
    from qcore.shared import current_app as current_app
    from qcore.shared import current_task as current_task
    from qcore.shared import shared_task as shared_task
    from qcore.task import Task as Task

_HOMES = {
    "App": "app",
    "app_or_default": "app",
    "Task": "task",
    "shared_task": "shared",
    "current_app": "shared",
    "current_task": "shared",
    **dict.fromkeys(
        (
            "Signature",
            "chain",
            "chord",
            "chunks",
            "group",
            "maybe_signature",
            "signature",
            "xmap",
            "xstarmap",
        ),
        "canvas",
    ),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: `import qcore` alone stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'qcore' has no attribute {name!r}")
    value = getattr(import_module(f"qcore.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
