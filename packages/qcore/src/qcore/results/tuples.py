"""Results as plain nested lists, the form in which they are stored and sent (W15-06, W15-07)."""

from __future__ import annotations

from typing import Any

from qcore import current


def result_from_tuple(value: Any, app: Any = None) -> Any:
    """The result object for `[[id, parent], members]`; a result object is returned as it is.

    Args:
        value: tuple of a task (members None), of a group (list of members), a bare id, or a result.
        app: default the current one.

    Raises:
        ValueError: `value` has another form.
    """
    if hasattr(value, "as_tuple"):
        return value
    app = app or current.get_current_app()
    if isinstance(value, str):
        return app.AsyncResult(value)
    try:
        head, members = value
        task_id, parent = head if isinstance(head, (list, tuple)) else (head, None)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"not a result tuple: {value!r}; it is [[id, parent], members or None]") from exc
    if parent is not None:
        parent = result_from_tuple(parent, app)
    if members is not None:
        return app.GroupResult(task_id, [result_from_tuple(m, app) for m in members], parent=parent)
    return app.AsyncResult(task_id, parent=parent)
