"""A dict of bounded size, which drops what was touched least recently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(OrderedDict[K, V]):
    """Holds at most `limit` items; `touch` makes one the last to be dropped.

    Args:
        limit: Number of items; None for no bound.
        on_evict: Called with each value that is dropped for want of room.
    """

    def __init__(self, limit: int | None, on_evict: Callable[[V], object] | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.on_evict = on_evict

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if self.limit is not None:
            while len(self) > self.limit:
                _, dropped = self.popitem(last=False)
                if self.on_evict is not None:
                    self.on_evict(dropped)

    def touch(self, key: K) -> None:
        """Make `key` the most recent one."""
        self.move_to_end(key)
