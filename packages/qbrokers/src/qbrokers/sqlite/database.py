"""One connection to the broker's file: transactions, waiting for locks, errors, forks."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from qbrokers.errors import (
    BrokerUnavailable,
    BrokerUnusable,
    DatabaseCorrupt,
    DatabaseFull,
    DatabaseGone,
    DatabaseLocked,
    DatabaseReadOnly,
    DatabaseUnreachable,
)

from . import forks
from .options import Options
from .schema import prepare

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_ERRORS: dict[int, type[BrokerUnavailable] | type[BrokerUnusable]] = {
    sqlite3.SQLITE_FULL: DatabaseFull,
    sqlite3.SQLITE_READONLY: DatabaseReadOnly,
    sqlite3.SQLITE_PERM: DatabaseReadOnly,
    sqlite3.SQLITE_CORRUPT: DatabaseCorrupt,
    sqlite3.SQLITE_NOTADB: DatabaseCorrupt,
}
_READONLY_BUT_MOVED = {sqlite3.SQLITE_READONLY_DBMOVED}

# SQLite's own wait sleeps longer and longer, up to 100 ms. We let it wait shortly and ask again, so that a
# lock that becomes free is taken within a few milliseconds.
_SQLITE_WAIT_SECONDS = 0.01
_RETRY_SECONDS = 0.001

T = TypeVar("T")


class Database:
    """A connection to the file that threads share, one transaction at a time.

    It opens when it is first used, and again after a fork. When the file was deleted or replaced it stays
    unusable (`gone`): what was declared in the old file is lost, so a new connection to the broker is needed.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.gone = False
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._closing: weakref.finalize[..., Any] | None = None
        self._identity: tuple[int, int] | None = None
        forks.guard(self)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock of the file; commit at the end, or undo everything when an exception leaves the
        block.

        Raises:
            BrokerUnavailable: Locked too long, full, deleted; nothing of the block is stored.
            BrokerUnusable: Not writable, damaged, not ours.
        """
        with self.lock:
            connection = self._begin()
            try:
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back(connection)
                raise self._translated(error) from error
            except BaseException:
                self._roll_back(connection)
                raise

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query, without the write lock.

        Raises:
            BrokerUnavailable, BrokerUnusable: As for `transaction`.
        """
        with self.lock:
            connection = self._opened()
            try:
                return self._patiently(lambda: connection.execute(sql, parameters).fetchall())
            except sqlite3.Error as error:
                raise self._translated(error) from error

    def open(self) -> None:
        """Open, and create the file when it is missing.

        Raises:
            BrokerUnavailable, BrokerUnusable: As for `transaction`.
        """
        with self.lock:
            self._opened()

    def close(self) -> None:
        """Close the connection; a later use opens it again."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                if self._closing is not None:
                    self._closing.detach()
                connection.close()

    def vacuum_some(self, pages: int) -> None:
        """Give at most `pages` free pages back to the file system.

        Raises:
            BrokerUnavailable, BrokerUnusable: As for `transaction`.
        """
        with self.lock:
            connection = self._opened()
            try:
                # A single `execute` would stop after the first page.
                self._patiently(lambda: connection.executescript(f"PRAGMA incremental_vacuum({pages})"))
            except sqlite3.Error as error:
                raise self._translated(error) from error

    # -- forks

    def before_fork(self) -> None:
        self.lock.acquire()
        if self._connection is not None and not self._connection.in_transaction:
            self.close()

    def after_fork_in_parent(self) -> None:
        self.lock.release()

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        self._connection = None

    # -- inside

    def _begin(self) -> sqlite3.Connection:
        connection = self._opened()
        try:
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        except sqlite3.Error as error:
            raise self._translated(error) from error
        return connection

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid == os.getpid():
            self._check_identity()
            return self._connection
        if self.gone:
            raise DatabaseGone(self.options.path)
        try:
            connection = self._patiently(self._connect)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        self._connection, self._pid = connection, os.getpid()
        # A broker connection that nobody refers to any more, because nobody closed it, closes its file.
        self._closing = weakref.finalize(self, _close_in, self._pid, connection)
        self._closing.atexit = False
        self._check_identity()
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.options.path,
            timeout=_SQLITE_WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            prepare(connection, self.options)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_identity(self) -> None:
        """Notice that the path is another file now: writes into a deleted file would vanish with it."""
        try:
            status = os.stat(self.options.path)
        except OSError:
            identity = None
        else:
            identity = (status.st_dev, status.st_ino)
        if self._identity is None:
            self._identity = identity
        if identity is None or identity != self._identity:
            self.gone = True
            self.close()
            raise DatabaseGone(self.options.path)

    def _patiently(self, action: Callable[[], T]) -> T:
        """Repeat `action` while another process holds a lock that it needs."""
        deadline = 0.0
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if (error.sqlite_errorcode & 0xFF) not in _BUSY:
                    raise
                now = time.monotonic()
                deadline = deadline or now + self.options.busy_timeout_seconds
                if now >= deadline:
                    raise
            time.sleep(_RETRY_SECONDS)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        # Some errors (a full disk) make SQLite roll back by itself.
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()

    def _translated(self, error: sqlite3.Error) -> BrokerUnavailable | BrokerUnusable:
        path = self.options.path
        code = getattr(error, "sqlite_errorcode", 0) or 0
        if code in _READONLY_BUT_MOVED:
            self.gone = True
            return DatabaseGone(path, str(error))
        if code & 0xFF in _BUSY:
            return DatabaseLocked(path, f"waited {self.options.busy_timeout_seconds:g} s")
        kind = _ERRORS.get(code & 0xFF, DatabaseUnreachable)
        if kind is not DatabaseFull:
            # A new connection starts with clean caches.
            self.close()
        return kind(path, f"{error} [{getattr(error, 'sqlite_errorname', type(error).__name__)}]")


def _close_in(pid: int, connection: sqlite3.Connection) -> None:
    """Close a connection in the process that made it; elsewhere it must not be touched."""
    if pid == os.getpid():
        connection.close()
