"""Bounded memories of task ids: which were revoked, which have succeeded; and the file that keeps them."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qcore.errors import ImproperlyConfigured

logger = logging.getLogger(__name__)

REVOKES_MAX = 50_000
REVOKE_EXPIRES_SECONDS = 10_800.0
SUCCESSFUL_MAX = 1_000
SUCCESSFUL_EXPIRES_SECONDS = 10_800.0


class LimitedSet:
    """A set that remembers when its members came, and forgets the oldest ones.

    At most `maxlen` members are kept (0: no bound). Members older than `expires` seconds are forgotten, but never
    below `minlen` members.

    Args:
        clock: Epoch seconds; the times are exchanged between workers and stored.
    """

    __slots__ = ("_clock", "_data", "expires", "maxlen", "minlen")

    def __init__(
        self,
        maxlen: int = 0,
        expires: float = 0.0,
        data: Iterable[Any] | Mapping[Any, float] | None = None,
        minlen: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if maxlen < 0 or minlen < 0 or expires < 0 or 0 < maxlen < minlen:
            raise ValueError("maxlen, minlen and expires must not be negative, and minlen not above maxlen")
        self.maxlen = maxlen
        self.minlen = minlen
        self.expires = expires
        self._clock = clock
        self._data: dict[Any, float] = {}
        if data:
            self.update(data)

    def add(self, item: Any, now: float | None = None) -> None:
        """Remember `item` as of `now`; one that is known already is as young as `now` afterwards."""
        self._data.pop(item, None)
        moment = self._clock() if now is None else now
        late = bool(self._data) and moment < next(reversed(self._data.values()))
        self._data[item] = moment
        if late:
            self._sort()
        self.purge()

    def update(self, other: Iterable[Any] | Mapping[Any, float]) -> None:
        """Take over the members of `other`, with their times when it has some."""
        now = self._clock()
        if isinstance(other, LimitedSet):
            other = other.as_dict()
        items = other.items() if isinstance(other, Mapping) else ((item, now) for item in other)
        for item, moment in items:
            moment = moment if isinstance(moment, (int, float)) else now
            known = self._data.get(item)
            if known is None or known < moment:
                self._data[item] = float(moment)
        self._sort()
        self.purge()

    def discard(self, item: Any) -> None:
        """Forget `item`, if it is known."""
        self._data.pop(item, None)

    def clear(self) -> None:
        """Forget everything."""
        self._data.clear()

    def purge(self, now: float | None = None) -> None:
        """Forget what is too much or too old."""
        data = self._data
        while self.maxlen and len(data) > self.maxlen:
            del data[next(iter(data))]
        if self.expires:
            limit = (self._clock() if now is None else now) - self.expires
            while len(data) > self.minlen:
                oldest = next(iter(data))
                if data[oldest] > limit:
                    break
                del data[oldest]

    def as_dict(self) -> dict[Any, float]:
        """Member -> epoch seconds, oldest first."""
        return dict(self._data)

    def _sort(self) -> None:
        self._data = dict(sorted(self._data.items(), key=lambda pair: pair[1]))

    def __contains__(self, item: object) -> bool:
        return item in self._data

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._data))

    def __len__(self) -> int:
        return len(self._data)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __repr__(self) -> str:
        return f"LimitedSet({len(self._data)}: {list(self._data)[:8]!r}, maxlen={self.maxlen}, expires={self.expires})"


_SCHEMA = """
CREATE TABLE IF NOT EXISTS ids (kind TEXT NOT NULL, id TEXT NOT NULL, seen REAL NOT NULL, PRIMARY KEY (kind, id));
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class StateDB:
    """Keeps revoked ids, succeeded ids and the logical clock in a file over restarts.

    A revocation is written when it happens, the rest with `sync()`; a `kill -9` loses nothing that was revoked.

    Args:
        path: File to use; made when missing. It is an SQLite database.
        state: The worker's state; filled from the file by `open()`.

    Raises:
        ImproperlyConfigured: the file cannot be used, with the reason.
    """

    def __init__(self, path: str | Path, state: Any) -> None:
        self.path = Path(path)
        self.state = state
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file and merge what it holds into the state."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=5.0, isolation_level=None, check_same_thread=False
            )
            try:
                connection.executescript(_SCHEMA)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as exc:
            raise ImproperlyConfigured(
                f"the worker cannot keep its state in {str(self.path)!r} (--statedb): {exc}. "
                "Name a file in a directory that it may write; a file of another program has to go first."
            ) from exc
        self._connection = connection
        for kind, memory in self._memories():
            memory.update(
                dict(connection.execute("SELECT id, seen FROM ids WHERE kind = ?", (kind,)).fetchall())
            )
        row = connection.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
        if row and self.state.clock is not None:
            self.state.clock.adjust(int(row[0]))

    def save_revoked(self, ids: Iterable[str]) -> None:
        """Write the ids just revoked."""
        self._write("revoked", [(id, time.time()) for id in ids])

    def sync(self) -> None:
        """Make the file say what the memory says."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM ids")
            for kind, memory in self._memories():
                rows = [(kind, id, seen) for id, seen in memory.as_dict().items()]
                connection.executemany("INSERT OR REPLACE INTO ids VALUES (?, ?, ?)", rows)
            if self.state.clock is not None:
                value = str(self.state.clock.value)
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (value,))
            connection.execute("COMMIT")
        except sqlite3.Error as exc:
            logger.error("Cannot save the worker's state in %s: %s. It is tried again later.", self.path, exc)
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def close(self) -> None:
        """Save everything and close the file."""
        self.sync()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _memories(self) -> list[tuple[str, LimitedSet]]:
        return [("revoked", self.state.revoked), ("successful", self.state.successful)]

    def _write(self, kind: str, rows: list[tuple[str, float]]) -> None:
        if self._connection is None or not rows:
            return
        try:
            self._connection.executemany(
                "INSERT OR REPLACE INTO ids VALUES (?, ?, ?)", [(kind, id, seen) for id, seen in rows]
            )
        except sqlite3.Error as exc:
            logger.error("Cannot save the worker's state in %s: %s. It is tried again later.", self.path, exc)
