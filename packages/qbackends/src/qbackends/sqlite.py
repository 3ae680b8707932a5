"""Results in an SQLite file: the embedded default, several processes on one machine.

The tables are those of the database store (W20), so any client of that can read the file; the standard library's
driver is used alone, as it starts faster and needs nothing installed.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from qcore.backend.retrying import RetryPolicy
from qcore.errors import BackendGetMetaError, BackendStoreError, ImproperlyConfigured

from .relational import OpenChord, Part, RelationalBackend, Transaction
from .rows import COLUMNS

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BUSY_SECONDS = 30.0
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS "{task}" (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task_id VARCHAR(155) UNIQUE, status VARCHAR(50), result BLOB, date_done DATETIME, traceback TEXT,
    children BLOB, name VARCHAR(155), args BLOB, kwargs BLOB, worker VARCHAR(155), retries INTEGER,
    queue VARCHAR(155), stamps BLOB);
CREATE INDEX IF NOT EXISTS "ix_{task}_date_done" ON "{task}" (date_done);
CREATE TABLE IF NOT EXISTS "{group}" (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    taskset_id VARCHAR(155) UNIQUE, result BLOB, date_done DATETIME);
CREATE INDEX IF NOT EXISTS "ix_{group}_date_done" ON "{group}" (date_done);
CREATE TABLE IF NOT EXISTS q_chord (
    group_id VARCHAR(155) NOT NULL PRIMARY KEY, size INTEGER NOT NULL, body BLOB NOT NULL,
    header BLOB NOT NULL, claimed DOUBLE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS q_chord_part (
    group_id VARCHAR(155) NOT NULL, task_id VARCHAR(155) NOT NULL, position INTEGER NOT NULL,
    state VARCHAR(50) NOT NULL, result BLOB, PRIMARY KEY (group_id, task_id, position)) WITHOUT ROWID;
"""


class SQLiteBackend(RelationalBackend):
    """The SQLite result store.

    Args:
        app: the app.
        url: `db+sqlite:///relative/path`, `db+sqlite:////absolute/path`; without path the results are kept in
            memory, for this process.

    Raises:
        ImproperlyConfigured: the file cannot be opened.
    """

    _first_pause_seconds = 0.00025

    def __init__(self, app: Any, url: str = "db+sqlite://") -> None:
        self.path, timeout = _path_of(url)
        self._busy_seconds = _BUSY_SECONDS if timeout is None else timeout
        names = app.conf.database_table_names or {}
        self._names = {
            "task": names.get("task") or "celery_taskmeta",
            "group": names.get("group") or "celery_tasksetmeta",
        }
        self._inherited: list[Any] = []
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        super().__init__(app, url)
        self._policy = self.retry_policy(RetryPolicy(max_retries=3, start=0.05, longest=1.0))

    def _start_process(self) -> None:
        super()._start_process()
        if self._connection is not None:
            # A connection must not be used, nor closed, in a child of the process that made it.
            self._inherited.append(self._connection)
        self._connection = None
        self._closing: weakref.finalize[..., Any] | None = None
        self._connection_lock = threading.RLock()
        self._own_writes = 0

    # --- the file ------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                self._create_tables(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.OperationalError as exc:
            if "locked" in str(exc):
                raise
            raise ImproperlyConfigured(
                f"the result store {self.path!r} cannot be opened: {exc}; does its directory exist, and may "
                "this user write there?"
            ) from exc
        return connection

    def _create_tables(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.format(**self._names).split(";"):
            if statement.strip():
                connection.execute(statement)
        present = {row[1] for row in connection.execute(f'PRAGMA table_info("{self._names["task"]}")')}
        for column in COLUMNS:  # tables made by others may lack the later ones
            if column not in present:
                kind = {"retries": "INTEGER", "name": "VARCHAR(155)", "worker": "VARCHAR(155)"}.get(
                    column, "BLOB"
                )
                connection.execute(f'ALTER TABLE "{self._names["task"]}" ADD COLUMN {column} {kind}')
        connection.execute("COMMIT")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity != self._identify():
            # What is written into a deleted file goes with it.
            logger.warning(
                "the result store %s was deleted or replaced; going on with the new file", self.path
            )
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect()
            self._identity = self._identify()
            # A store that nobody refers to any more, because its app was dropped, closes its file.
            self._closing = weakref.finalize(self, _close_in, os.getpid(), self._connection)
            self._closing.atexit = False
        return self._connection

    def _identify(self) -> tuple[int, int] | None:
        """Which file the path is now; None while there is none, or for memory."""
        if self.path == ":memory:":
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if self._closing is not None:
            self._closing.detach()
        if connection is not None:
            connection.close()

    @contextmanager
    def transaction(self, write: bool) -> Iterator[Transaction]:
        with self._connection_lock:
            connection = self._opened()
            if not write:
                yield _Statements(connection, self._names)
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _Statements(connection, self._names)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            self._own_writes += 1

    def run(self, operation: Callable[[Transaction], T], what: str, write: bool) -> T:
        self._check_process()

        def attempt() -> T:
            with self.transaction(write) as transaction:
                return operation(transaction)

        try:
            return self._policy.call(attempt, _is_passing, f"{what} in {self.path}")
        except sqlite3.Error as exc:
            error = BackendStoreError if write else BackendGetMetaError
            raise error(f"{what} in the result store {self.path!r} failed: {exc}{_advice(exc)}") from exc

    def _change_token(self) -> object:
        self._check_process()
        with self._connection_lock:
            if self._connection is None:
                return None
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            return version, self._own_writes

    def close(self) -> None:
        super().close()
        with self._connection_lock:
            if self.path != ":memory:":  # closing would lose the results
                self._disconnect()


_DAMAGED = "; move the file and its -wal and -shm companions away, or give another path"
_ADVICE = {
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: "; free disk space",
    sqlite3.SQLITE_READONLY: "; make the file and its directory writable for this user",
    sqlite3.SQLITE_BUSY: "; another program holds its lock: a database browser, or a backup?",
}


def _advice(exc: sqlite3.Error) -> str:
    return _ADVICE.get((getattr(exc, "sqlite_errorcode", 0) or 0) & 0xFF, "")


def _close_in(pid: int, connection: sqlite3.Connection) -> None:
    """Close a connection in the process that made it; elsewhere it must not be touched."""
    if pid == os.getpid():
        connection.close()


class _Statements:
    """`Transaction` on one connection."""

    def __init__(self, connection: sqlite3.Connection, names: Mapping[str, str]) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._task, self._group = f'"{names["task"]}"', f'"{names["group"]}"'

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = ", ".join(COLUMNS)
        marks = ", ".join("?" * len(COLUMNS))
        changes = ", ".join(f"{column}=excluded.{column}" for column in COLUMNS[1:])
        self._executemany(
            f"INSERT INTO {self._task} ({columns}) VALUES ({marks}) "
            f"ON CONFLICT (task_id) DO UPDATE SET {changes} WHERE {self._task}.status <> 'SUCCESS'",
            [_values(row) for row in rows],
        )

    def select(self, task_ids: Sequence[str]) -> list[Mapping[str, Any]]:
        marks = ", ".join("?" * len(task_ids))
        cursor = self._execute(
            f"SELECT {', '.join(COLUMNS)} FROM {self._task} WHERE task_id IN ({marks})", tuple(task_ids)
        )
        return [dict(zip(COLUMNS, row, strict=True)) for row in cursor]

    def delete_task(self, task_id: str) -> None:
        self._execute(f"DELETE FROM {self._task} WHERE task_id = ?", (task_id,))

    def put_group(self, group_id: str, result: bytes, now: datetime) -> None:
        self._execute(
            f"INSERT INTO {self._group} (taskset_id, result, date_done) VALUES (?, ?, ?) "
            "ON CONFLICT (taskset_id) DO UPDATE SET result=excluded.result, date_done=excluded.date_done",
            (group_id, result, now.strftime(_TIME_FORMAT)),
        )

    def get_group(self, group_id: str) -> bytes | None:
        row = self._execute(f"SELECT result FROM {self._group} WHERE taskset_id = ?", (group_id,)).fetchone()
        return None if row is None else bytes(row[0])

    def delete_group(self, group_id: str) -> None:
        self._execute(f"DELETE FROM {self._group} WHERE taskset_id = ?", (group_id,))

    def delete_older(self, before: datetime) -> None:
        for table in (self._task, self._group):
            self._execute(f"DELETE FROM {table} WHERE date_done < ?", (before.strftime(_TIME_FORMAT),))

    def open_chord(self, chord: OpenChord) -> None:
        self.delete_chord(chord.group_id)
        self._execute(
            "INSERT INTO q_chord (group_id, size, body, header, claimed) VALUES (?, ?, ?, ?, ?)",
            (chord.group_id, chord.size, chord.body, chord.header, chord.claimed),
        )

    def lock_chord(self, group_id: str) -> OpenChord | None:
        row = self._execute(
            "SELECT group_id, size, body, header, claimed FROM q_chord WHERE group_id = ?", (group_id,)
        ).fetchone()
        return None if row is None else OpenChord(*row)

    def grow_chord(self, group_id: str) -> None:
        self._execute("UPDATE q_chord SET size = size + 1 WHERE group_id = ?", (group_id,))

    def claim_chord(self, group_id: str, now: float | None) -> None:
        self._execute("UPDATE q_chord SET claimed = ? WHERE group_id = ?", (now, group_id))

    def delete_chord(self, group_id: str) -> None:
        self._execute("DELETE FROM q_chord WHERE group_id = ?", (group_id,))
        self._execute("DELETE FROM q_chord_part WHERE group_id = ?", (group_id,))

    def add_parts(self, parts: Sequence[Part]) -> None:
        self._executemany(
            "INSERT OR IGNORE INTO q_chord_part (group_id, task_id, position, state, result) "
            "VALUES (?, ?, ?, ?, ?)",
            [(part.group_id, part.task_id, part.position, part.state, part.result) for part in parts],
        )

    def count_parts(self, group_id: str) -> int:
        row = self._execute("SELECT count(*) FROM q_chord_part WHERE group_id = ?", (group_id,)).fetchone()
        return int(row[0])

    def parts(self, group_id: str) -> list[Part]:
        cursor = self._execute(
            "SELECT group_id, task_id, position, state, result FROM q_chord_part WHERE group_id = ? "
            "ORDER BY position",
            (group_id,),
        )
        return [Part(*row) for row in cursor]

    def open_chords(self, claimed_before: float) -> list[str]:
        cursor = self._execute(
            "SELECT group_id FROM q_chord WHERE claimed IS NULL OR claimed < ?", (claimed_before,)
        )
        return [row[0] for row in cursor]


def _values(row: Mapping[str, Any]) -> tuple[Any, ...]:
    done = row["date_done"]
    values = [row[column] for column in COLUMNS]
    values[3] = None if done is None else done.strftime(_TIME_FORMAT)
    return tuple(values)


def _is_passing(exc: BaseException) -> bool:
    return isinstance(exc, sqlite3.OperationalError) and ("locked" in str(exc) or "busy" in str(exc))


def _path_of(url: str) -> tuple[str, float | None]:
    """Path of the file and seconds to wait for a lock, from `db+sqlite:///path?timeout=5`."""
    rest = url.partition("://")[2]
    path, _, query = rest.partition("?")
    timeout = dict(parse_qsl(query)).get("timeout")
    path = unquote(path.removeprefix("/"))
    if not path or path == ":memory:":
        return ":memory:", None
    try:
        return os.path.expanduser(path), None if timeout is None else float(timeout)
    except ValueError:
        raise ImproperlyConfigured(
            f"the timeout of the result store {url!r} must be a number of seconds, not {timeout!r}"
        ) from None
