"""Group results of one app: `app.GroupResult`."""

from __future__ import annotations

from typing import Any

from .sets import GroupResult


class GroupResults:
    """The group results of one app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, group_id: str | None = None, results: Any = None, **kwargs: Any) -> GroupResult[Any]:
        """The results of a group."""
        return GroupResult(group_id, results, app=self._app, **kwargs)

    def restore(self, group_id: str, backend: Any = None) -> GroupResult[Any] | None:
        """The result that `GroupResult.save` kept under that id; None when there is none."""
        return GroupResult.restore(group_id, backend=backend, app=self._app)
