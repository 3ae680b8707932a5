"""Who consumes, who is dead, and whose messages come back.

Every consuming connection is an *owner*: a row in the database, and a file beside it that the process keeps
locked. The kernel releases the lock when the process ends, however it ends, so any other process can prove at
once that an owner is dead. An owner that is alive by its lock but does not renew its lease (a stopped
process) loses its messages as well: an observer sees that its counter of heartbeats stands still for the
length of the lease, measured with the observer's own monotonic clock. The wall clock plays no part, so
setting it does no harm.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
import uuid

from attrs import frozen

from . import topology
from .wakeup import SUFFIX, Waiter

logger = logging.getLogger(__name__)

LOCK_SUFFIX = ".lock"
_ORPHAN_SECONDS = 60.0

# Never changes: tells this process from an earlier one that had the same number.
_BOOT = uuid.uuid4().hex[:12]


def process_name() -> str:
    """Return a name for this process that no other process has or had."""
    return f"{os.getpid()}-{_BOOT}"


def directory_of(database_path: str) -> str:
    """Return the directory with the files of the owners."""
    return f"{database_path}-peers"


class Peer:
    """This connection as the owner of messages."""

    def __init__(self, directory: str) -> None:
        """Create the lock and the pipe.

        Raises:
            OSError: The directory cannot be made or written.
        """
        os.makedirs(directory, exist_ok=True)
        self.token = f"{process_name()}-{uuid.uuid4().hex[:12]}"
        self.id = 0
        self._stem = os.path.join(directory, self.token)
        self._lock = os.open(self._stem + LOCK_SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.waiter = Waiter(self._stem + SUFFIX)

    def register(self, connection: sqlite3.Connection, lease_seconds: float) -> None:
        """Write the row, within the caller's transaction."""
        cursor = connection.execute(
            "INSERT INTO owner (token, lease_seconds, beat) VALUES (?, ?, 0)", (self.token, lease_seconds)
        )
        self.id = cursor.lastrowid or 0

    def close(self, left: bool = True) -> None:
        """Give up the lock and the pipe.

        Args:
            left: Whether the owner's row is deleted. Otherwise the file of the lock stays, for others to find
                that nobody holds it.
        """
        self.waiter.close()
        if left:
            _unlink(self._stem + LOCK_SUFFIX)
        os.close(self._lock)

    def forget(self) -> None:
        """In a forked child: close the descriptors, leave the parent its files."""
        self.waiter.close(remove=False)
        # A record lock belongs to the parent alone, closing the descriptor here does not release it.
        os.close(self._lock)


@frozen
class _Sighting:
    beat: int
    since: float  # monotonic seconds


class Watch:
    """Finds the owners that are dead or stand still."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._sightings: dict[int, _Sighting] = {}
        self._looked = 0.0

    def lost(self, owners: list[tuple[int, str, float, int]]) -> list[tuple[int, str, int]]:
        """Return (id, token, beat) of the lost ones among rows (id, token, lease_seconds, beat)."""
        now = time.monotonic()
        slept, self._looked = now - self._looked, now
        lost = []
        for id, token, lease_seconds, beat in owners:
            if is_dead(self._directory, token) or self._stands_still(
                _Sighting(beat, now), id, lease_seconds, slept
            ):
                lost.append((id, token, beat))
        self._sightings = {id: self._sightings[id] for id, _, _, _ in owners if id in self._sightings}
        return lost

    def _stands_still(self, sight: _Sighting, id: int, lease_seconds: float, slept: float) -> bool:
        before = self._sightings.get(id)
        # An observer that slept for long was stopped itself, perhaps together with the owner.
        if before is None or before.beat != sight.beat or slept > lease_seconds / 2:
            self._sightings[id] = sight
            return False
        return sight.since - before.since > lease_seconds


def is_dead(directory: str, token: str) -> bool:
    """Return whether the process of an owner has ended: then its lock is free."""
    if token.startswith(process_name()):
        # Closing a file releases all record locks that the process has on it, so our own are not touched.
        return False
    try:
        lock = os.open(os.path.join(directory, token + LOCK_SUFFIX), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # Nothing is proved, the lease decides.
        return False
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def release(connection: sqlite3.Connection, owner_id: int) -> list[int]:
    """Return an owner's messages to their queues and delete the owner; within the caller's transaction.

    Returns:
        The ids of the queues that have messages again.
    """
    key = (owner_id,)
    queue_ids = [
        id for (id,) in connection.execute("SELECT DISTINCT queue_id FROM claimed WHERE owner_id = ?", key)
    ]
    connection.execute(
        "INSERT INTO ready (queue_id, rank, id, deliveries)"
        " SELECT queue_id, rank, id, deliveries FROM claimed WHERE owner_id = ?",
        key,
    )
    connection.execute("DELETE FROM claimed WHERE owner_id = ?", key)
    connection.execute(
        "UPDATE queue SET used = ? WHERE id IN (SELECT queue_id FROM consumer WHERE owner_id = ?)",
        (time.time(), owner_id),
    )
    connection.execute("DELETE FROM consumer WHERE owner_id = ?", key)
    connection.execute("DELETE FROM owner WHERE id = ?", key)
    topology.changed(connection)
    topology.delete_queues(connection, topology.abandoned_queues(connection))
    return queue_ids


def remove_files(directory: str, token: str) -> None:
    """Delete what a dead owner left beside the database."""
    for suffix in (SUFFIX, LOCK_SUFFIX):
        _unlink(os.path.join(directory, token + suffix))


def remove_orphans(directory: str, known: set[str]) -> None:
    """Delete old files of owners without a row: dead early, or their database was deleted."""
    names = set(os.listdir(directory))
    for name in names:
        token, suffix = os.path.splitext(name)
        if (
            suffix not in (SUFFIX, LOCK_SUFFIX)
            or token in known
            or not _is_old(os.path.join(directory, name))
        ):
            continue
        if token + LOCK_SUFFIX not in names or is_dead(directory, token):
            remove_files(directory, token)


def _is_old(path: str) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime > _ORPHAN_SECONDS
    except OSError:
        return False


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
