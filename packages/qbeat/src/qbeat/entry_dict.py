"""A dict of entries that counts its changes: a scheduler of many entries need not compare them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qbeat.entry import ScheduleEntry


class EntryDict(dict[str, ScheduleEntry]):
    """Name -> entry; `version` grows with every change except `move_on`."""

    def __init__(self, entries: Mapping[str, ScheduleEntry] | None = None) -> None:
        super().__init__(entries or {})
        self.version = 0

    def move_on(self, name: str, entry: ScheduleEntry) -> None:
        """Put the entry of the next run in place of that of the last one."""
        super().__setitem__(name, entry)

    def __setitem__(self, name: str, entry: ScheduleEntry) -> None:
        super().__setitem__(name, entry)
        self.version += 1

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.version += 1

    def pop(self, name: str, *default: Any) -> Any:
        """Take an entry out."""
        self.version += 1
        return super().pop(name, *default)

    def popitem(self) -> tuple[str, ScheduleEntry]:
        """Take the last entry out."""
        self.version += 1
        return super().popitem()

    def update(self, *others: Any, **entries: ScheduleEntry) -> None:
        """Put entries in."""
        super().update(*others, **entries)
        self.version += 1

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The entry, put in when it is missing."""
        self.version += 1
        return super().setdefault(name, default)

    def clear(self) -> None:
        """Take all entries out."""
        super().clear()
        self.version += 1

    def __ior__(self, other: Any) -> EntryDict:  # type: ignore[override,misc]
        self.update(other)
        return self
