"""The tables of a SQLite broker, and how a file is prepared.

A message is written once into `message` and never changed. Its place is in exactly one of three narrow
tables: `ready` (in the order of delivery), `delayed` (in the order of the due time) or `claimed` (with the
consumer that has it). Moving a message is then a few bytes, however big its body is, and an acknowledged
message leaves nothing.

`rank` is 9 minus the priority, so that ascending order is order of delivery. Numbers of messages only ever
grow: within a rank the number is the order of publishing, and a message that is returned stands in front
again.
"""

from __future__ import annotations

import sqlite3

from qbrokers.errors import NotABroker

from .options import Options

APPLICATION_ID = 0x71427231
SCHEMA_VERSION = 1
PAGE_BYTES = 4096

_TABLES = """
CREATE TABLE counter (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    next_message INTEGER NOT NULL,
    generation INTEGER NOT NULL
);
INSERT INTO counter VALUES (1, 1, 1);
CREATE TABLE queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    temporary INTEGER NOT NULL,
    ttl_seconds REAL,
    expires_seconds REAL,
    used REAL NOT NULL,
    had_consumer INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE exchange (name TEXT PRIMARY KEY, type TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE binding (
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    queue_id INTEGER NOT NULL,
    PRIMARY KEY (exchange, routing_key, queue_id)
) WITHOUT ROWID;
CREATE TABLE owner (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL UNIQUE,
    lease_seconds REAL NOT NULL,
    beat INTEGER NOT NULL
);
CREATE TABLE consumer (
    owner_id INTEGER NOT NULL,
    tag TEXT NOT NULL,
    queue_id INTEGER NOT NULL,
    PRIMARY KEY (owner_id, tag)
) WITHOUT ROWID;
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    queue_id INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    expires REAL,
    head TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX message_expires ON message (expires) WHERE expires IS NOT NULL;
CREATE TABLE ready (
    queue_id INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    id INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (queue_id, rank, id)
) WITHOUT ROWID;
CREATE TABLE delayed (
    queue_id INTEGER NOT NULL,
    due REAL NOT NULL,
    id INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    PRIMARY KEY (queue_id, due, id)
) WITHOUT ROWID;
CREATE TABLE claimed (
    id INTEGER PRIMARY KEY,
    owner_id INTEGER NOT NULL,
    queue_id INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    deliveries INTEGER NOT NULL
);
"""


def prepare(connection: sqlite3.Connection, options: Options) -> None:
    """Set the pragmas of a new connection, and create the tables when the file is new.

    WAL lets readers and one writer work at the same time. `synchronous=NORMAL` syncs at checkpoints only:
    whatever process is killed, no committed transaction is lost; a power cut may undo the last ones, but
    never damages the file. `synchronous=FULL` (`durability=full`) syncs every commit.

    Raises:
        sqlite3.Error: For the caller to translate.
        NotABroker: The file belongs to another program or to a newer version.
    """
    execute = connection.execute
    # Checked before anything is changed: this may be somebody else's database.
    _check_owner(connection, options.path)
    execute("PRAGMA auto_vacuum = INCREMENTAL")
    execute("PRAGMA journal_mode = WAL")
    execute(f"PRAGMA synchronous = {'FULL' if options.durability == 'full' else 'NORMAL'}")
    execute("PRAGMA temp_store = MEMORY")
    execute("PRAGMA cache_size = -8000")
    execute("PRAGMA journal_size_limit = 16777216")
    if options.max_bytes:
        execute(f"PRAGMA max_page_count = {max(options.max_bytes // PAGE_BYTES, 1)}")
    if not _version(connection):
        _create(connection, options.path)


def _check_owner(connection: sqlite3.Connection, path: str) -> None:
    version = _version(connection)
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application == APPLICATION_ID and version <= SCHEMA_VERSION:
        return
    if application == APPLICATION_ID:
        raise NotABroker(path, f"made by a newer version (schema {version}); upgrade qbrokers")
    if application or version or connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise NotABroker(path, "it has tables of another program")


def _create(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster.
        _check_owner(connection, path)
        if not _version(connection):
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
