"""Keeps SQLite connections out of forked children.

SQLite counts the locks of a file per process, in memory. A child inherits the counts but not the locks (POSIX
record locks stay with the parent), so even a connection that the child opens itself would believe in locks
that it does not have, and another process could remove the write-ahead log under it. Therefore every
connection is closed before the fork, and both sides open a new one when they need it.

The set below is the one piece of global state: fork hooks are global to the process, and cannot be removed
again.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)


class Forkable(Protocol):
    """Something that has to let go before the process forks."""

    def before_fork(self) -> None:
        """Close what a child must not inherit, and keep other threads from opening it again."""

    def after_fork_in_parent(self) -> None:
        """Let other threads work again."""

    def after_fork_in_child(self) -> None:
        """Forget what belongs to the parent."""


_alive: weakref.WeakSet[Forkable] = weakref.WeakSet()
_held: list[Forkable] = []


def guard(forkable: Forkable) -> None:
    """Call the methods of `forkable` around every fork, for as long as it lives."""
    _alive.add(forkable)


def _before() -> None:
    # Strong references: the same objects must be released that were held.
    _held.extend(_alive)
    for forkable in _held:
        _guarded(forkable.before_fork)


def _after_in_parent() -> None:
    while _held:
        _guarded(_held.pop().after_fork_in_parent)


def _after_in_child() -> None:
    while _held:
        _guarded(_held.pop().after_fork_in_child)


def _guarded(hook: Callable[[], None]) -> None:
    try:
        hook()
    except Exception:  # Python would report it as well, but then skip the other connections.
        logger.exception("A broker connection could not be prepared for a fork")


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
