"""The state file: when each entry was run last, in SQLite, written run by run.

A write is a transaction in the write-ahead log: whatever kills the process, the file holds every run up to
the last one written. A file that cannot be read is put aside under another name, and a new one begun.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from qcore.errors import ImproperlyConfigured
from qcore.times import make_aware

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x71626561  # "qbea": tells our files from other SQLite data bases
_SUFFIXES = ("", "-wal", "-shm", "-journal")
_BUSY_SECONDS = 5.0


class SavedRun(NamedTuple):
    """What is remembered of an entry."""

    last_run_at: datetime
    total_run_count: int


class StateFile:
    """The runs of all entries, by name, and a few facts about the schedule.

    Args:
        path: The file; its directory must exist.

    Raises:
        ImproperlyConfigured: The file cannot be written where it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as exc:
            if _is_environment(exc):
                raise ImproperlyConfigured(
                    f"cannot write the schedule file {self.path} ({exc}): give another place with -s or the "
                    "setting beat_schedule_filename"
                ) from exc
            self._put_aside(exc)
            self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    @staticmethod
    def _prepare(database: sqlite3.Connection) -> None:
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (owner,) = database.execute("PRAGMA application_id").fetchone()
        if tables and owner != APPLICATION_ID:
            raise sqlite3.DatabaseError("it is a data base of another program")
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        database.execute(
            "CREATE TABLE IF NOT EXISTS runs (name TEXT PRIMARY KEY, last_run_at TEXT NOT NULL, "
            "total_run_count INTEGER NOT NULL) WITHOUT ROWID"
        )

    def _put_aside(self, reason: Exception) -> None:
        aside = self.path.with_name(f"{self.path.name}.unreadable-{time.strftime('%Y%m%dT%H%M%S')}")
        for suffix in _SUFFIXES:
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                os.replace(part, aside.with_name(aside.name + suffix))
        logger.error(
            "The schedule file %s cannot be read (%s): it is kept as %s, and a new one is begun; entries "
            "count from now",
            self.path,
            reason,
            aside.name,
        )

    # -- reading and writing

    def runs(self) -> dict[str, SavedRun]:
        """All runs that can be understood."""
        found = {}
        with closing(self._database.execute("SELECT name, last_run_at, total_run_count FROM runs")) as rows:
            for name, text, count in rows:
                try:
                    found[name] = SavedRun(make_aware(datetime.fromisoformat(text)), int(count))
                except (TypeError, ValueError):
                    logger.warning(
                        "The schedule file has no time of last run for %r: counting from now", name
                    )
        return found

    def save(self, name: str, run: SavedRun) -> None:
        """Write one run."""
        self._database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", _row(name, run))

    def replace(self, runs: Iterable[tuple[str, SavedRun]]) -> None:
        """Make `runs` all there is, in one transaction."""
        rows = [_row(name, run) for name, run in runs]
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.execute("DELETE FROM runs")
            self._database.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def fact(self, name: str) -> str | None:
        """A fact about the schedule."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_fact(self, name: str, value: str) -> None:
        """Remember a fact about the schedule."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def checkpoint(self) -> None:
        """Move what is in the log into the file, and both onto the disk."""
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of the file; the log is moved into it."""
        self._database.close()


def _row(name: str, run: SavedRun) -> tuple[str, str, int]:
    return name, make_aware(run.last_run_at).astimezone(UTC).isoformat(), run.total_run_count


def _is_environment(exc: sqlite3.DatabaseError) -> bool:
    """Whether the place is at fault, not the content: no directory, no permission, disk full, in use."""
    return isinstance(exc, sqlite3.OperationalError)
