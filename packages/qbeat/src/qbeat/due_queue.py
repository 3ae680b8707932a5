"""Which entry is due next: a heap of times."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple


class Due(NamedTuple):
    """An entry and the epoch seconds at which to look at it; `order` keeps ties in the order they came."""

    when: float
    order: int
    name: str


class DueQueue:
    """Names of entries, the earliest first. Every entry is in it once."""

    def __init__(self, items: Iterable[tuple[float, str]] = ()) -> None:
        self._order = count()
        self._heap = [Due(when, next(self._order), name) for when, name in items]
        heapq.heapify(self._heap)

    def push(self, when: float, name: str) -> None:
        """Look at `name` at `when`."""
        heapq.heappush(self._heap, Due(when, next(self._order), name))

    def pop(self) -> Due:
        """Take the earliest one."""
        return heapq.heappop(self._heap)

    @property
    def first(self) -> Due | None:
        """The earliest one, left where it is."""
        return self._heap[0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)
