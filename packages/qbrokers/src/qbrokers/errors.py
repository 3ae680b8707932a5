"""The errors of qbrokers.

    QBrokersError
    ├── BadBrokerURL (ValueError)           the URL or one of its options makes no sense
    ├── BrokerUnavailable (ConnectionError) trying again later, or after a reconnect, can help
    │   ├── DatabaseLocked                  another process holds the write lock too long
    │   ├── DatabaseFull                    no space left for the database
    │   ├── DatabaseGone                    the file was deleted or replaced while it was in use
    │   ├── DatabaseUnreachable             the file cannot be opened, or reading and writing it fails
    │   └── LeaseLost                       this process stood still, its messages went to others
    └── BrokerUnusable                      somebody must act before a retry makes sense
        ├── DatabaseReadOnly                no permission to write
        ├── DatabaseCorrupt                 not a database, or a damaged one
        └── NotABroker                      a database of another program or of a newer version

The SQLite transport lists `BrokerUnavailable` and `BrokerUnusable` in `Transport.connection_errors`, and only
the former in `Transport.recoverable_connection_errors`: kombu retries what can get better, and reports the
rest at once. Errors of a channel (no such exchange, another exchange type) are kombu's own `ChannelError`s.
"""

from __future__ import annotations


class QBrokersError(Exception):
    """Root of all errors of this package."""


class BadBrokerURL(QBrokersError, ValueError):
    """The URL, or an option in it, cannot be understood."""


class _DatabaseError(QBrokersError):
    """An error about one database file; subclasses say in `advice` what to do."""

    advice = ""

    def __init__(self, path: str, detail: str = "") -> None:
        self.path = path
        self.detail = detail
        reason = f" ({detail})" if detail else ""
        super().__init__(f"SQLite broker {path}: {self.advice}{reason}")

    def __reduce__(self) -> tuple[type[_DatabaseError], tuple[str, str]]:
        return type(self), (self.path, self.detail)


class BrokerUnavailable(_DatabaseError, ConnectionError):
    """The broker cannot be used right now; what was asked did not happen, try again."""

    advice = "cannot be used right now, try again"


class DatabaseLocked(BrokerUnavailable):
    """Another process held the write lock longer than `busy_timeout_seconds`."""

    advice = (
        "another process holds its lock; look for a program that keeps a transaction open "
        "(a database browser, a backup), or raise the option busy_timeout_seconds"
    )


class DatabaseFull(BrokerUnavailable):
    """The disk, or the limit `max_bytes`, is full; nothing of the operation was stored."""

    advice = (
        "no space left, nothing was stored; free disk space or raise the option max_bytes, then try again"
    )


class DatabaseGone(BrokerUnavailable):
    """The file was deleted or replaced while this process used it."""

    advice = "the file was deleted or replaced while it was in use; connect again to start with the new file"


class DatabaseUnreachable(BrokerUnavailable):
    """The file cannot be opened, or the operating system reports an input/output error."""

    advice = "cannot be opened or written; check that the directory exists, its permissions, and the disk"


class LeaseLost(BrokerUnavailable):
    """This process did not renew its lease in time, so its messages were given to others."""

    advice = "this process stood still longer than its lease, its messages went to others; connect again"


class BrokerUnusable(_DatabaseError):
    """The broker's file needs somebody's attention before a retry makes sense."""

    advice = "cannot be used"


class DatabaseReadOnly(BrokerUnusable):
    """The file, its directory or the file system cannot be written."""

    advice = "is read only; make the file and its directory writable for this user"


class DatabaseCorrupt(BrokerUnusable):
    """The file is not a SQLite database, or is damaged."""

    advice = (
        "is damaged or not a database; move the file and its -wal and -shm companions away "
        "(`sqlite3 FILE .recover` can read what is left), or give another path"
    )


class NotABroker(BrokerUnusable):
    """The file is a database of another program, or of a newer version of this one."""

    advice = "is not a database of this broker; give another path"
