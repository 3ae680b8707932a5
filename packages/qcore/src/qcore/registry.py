"""The tasks of an app by name."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from qcore.errors import InvalidTaskError, NotRegistered


class TaskRegistry(MutableMapping[str, Any]):
    """Mapping of task name to task; a missing name raises `NotRegistered`."""

    def __init__(self) -> None:
        self._tasks: dict[str, Any] = {}
        self.get_fast = self._tasks.get

    def __getitem__(self, name: str) -> Any:
        try:
            return self._tasks[name]
        except KeyError:
            raise NotRegistered(name) from None

    def __setitem__(self, name: str, task: Any) -> None:
        self._tasks[name] = task

    def __delitem__(self, name: str) -> None:
        self.unregister(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __repr__(self) -> str:
        return f"<TaskRegistry: {len(self)} tasks>"

    def register(self, task: Any) -> None:
        """Add `task` under its name.

        Raises:
            InvalidTaskError: it has no name.
        """
        if not task.name:
            raise InvalidTaskError(f"a task needs a name; {type(task).__name__} has none")
        self._tasks[task.name] = task

    def unregister(self, name: Any) -> None:
        """Remove a task by name or itself.

        Raises:
            NotRegistered: there is none of that name.
        """
        name = getattr(name, "name", name)
        try:
            del self._tasks[name]
        except KeyError:
            raise NotRegistered(name) from None

    def regular(self) -> dict[str, Any]:
        """The tasks that are not built in."""
        return {name: task for name, task in self._tasks.items() if not name.startswith("celery.")}
