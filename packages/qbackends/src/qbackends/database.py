"""Results in a database, through SQLAlchemy: PostgreSQL, MySQL/MariaDB, SQLite and others.

Tables and columns are those of table W20, so stock clients and workers share them. Chords are counted in two
tables of our own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from qcore.backend.record import ResultRecord
from qcore.backend.retrying import RetryPolicy
from qcore.errors import (
    BackendGetMetaError,
    BackendStoreError,
    ImproperlyConfigured,
    MissingPackageError,
)
from qcore.utils.imports import symbol_by_name

from .relational import OpenChord, Part, RelationalBackend, Transaction
from .rows import COLUMNS

try:
    import sqlalchemy as sa
    from sqlalchemy import exc as sa_errors
    from sqlalchemy.dialects import mysql, postgresql, sqlite
except ImportError as missing:  # pragma: no cover - the store is loaded by name, only when it is configured
    raise MissingPackageError("the result backend 'db'", "qbackends[database]") from missing

T = TypeVar("T")
logger = logging.getLogger(__name__)

_LOOKERS = 4
_OTHER_DRIVERS = {
    "postgresql": ("postgresql+psycopg", "postgresql+psycopg2"),
    "mysql": ("mysql+pymysql", "mysql+mysqldb"),
    "mariadb": ("mariadb+pymysql", "mariadb+mysqldb"),
}
_PASSING = (sa_errors.OperationalError, sa_errors.InterfaceError, sa_errors.InternalError)


class Tables:
    """The tables.

    Args:
        names: names for the keys `task` and `group`.
        schemas: schemas for the same keys.
    """

    def __init__(self, names: Mapping[str, str], schemas: Mapping[str, str]) -> None:
        self.metadata = sa.MetaData()
        number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
        blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
        text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
        # On MySQL the type without a precision drops the fraction of a second.
        moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
        task_schema = schemas.get("task")
        self.task = sa.Table(
            names.get("task") or "celery_taskmeta",
            self.metadata,
            sa.Column("id", number, sa.Sequence("task_id_sequence", schema=task_schema), primary_key=True),
            sa.Column("task_id", sa.String(155), unique=True),
            sa.Column("status", sa.String(50)),
            sa.Column("result", blob),
            sa.Column("date_done", moment, index=True),
            sa.Column("traceback", text),
            sa.Column("children", blob),
            sa.Column("name", sa.String(155)),
            sa.Column("args", blob),
            sa.Column("kwargs", blob),
            sa.Column("worker", sa.String(155)),
            sa.Column("retries", sa.Integer),
            sa.Column("queue", sa.String(155)),
            sa.Column("stamps", blob),
            schema=task_schema,
            sqlite_autoincrement=True,
        )
        group_schema = schemas.get("group")
        self.group = sa.Table(
            names.get("group") or "celery_tasksetmeta",
            self.metadata,
            sa.Column(
                "id", number, sa.Sequence("taskset_id_sequence", schema=group_schema), primary_key=True
            ),
            sa.Column("taskset_id", sa.String(155), unique=True),
            sa.Column("result", blob),
            sa.Column("date_done", moment, index=True),
            schema=group_schema,
            sqlite_autoincrement=True,
        )
        self.chord = sa.Table(
            "q_chord",
            self.metadata,
            sa.Column("group_id", sa.String(155), primary_key=True),
            sa.Column("size", sa.Integer, nullable=False),
            sa.Column("body", blob, nullable=False),
            sa.Column("header", blob, nullable=False),
            sa.Column("claimed", sa.Double),
            schema=task_schema,
        )
        self.part = sa.Table(
            "q_chord_part",
            self.metadata,
            sa.Column("group_id", sa.String(155), primary_key=True),
            sa.Column("task_id", sa.String(155), primary_key=True),
            sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("state", sa.String(50), nullable=False),
            sa.Column("result", blob),
            schema=task_schema,
        )


class DatabaseBackend(RelationalBackend):
    """The database result store.

    Args:
        app: the app.
        url: `db+` and an SQLAlchemy URL, such as `db+postgresql://user:password@host/database`; `database` alone
            takes the setting `database_url`.

    Raises:
        ImproperlyConfigured: there is no URL, or SQLAlchemy cannot use it.
    """

    def __init__(self, app: Any, url: str = "") -> None:
        conf = app.conf
        found = url.removeprefix("db+")
        if "://" not in found or found.startswith(("database://", "db://")):
            found = (conf.database_url or "").removeprefix("db+")
        if not found:
            raise ImproperlyConfigured(
                "the result backend 'database' needs an address: result_backend = 'db+postgresql://user@host/name' "
                "or the setting database_url"
            )
        self._engine: sa.Engine | None = None
        self._database_url = found
        self.tables = Tables(conf.database_table_names or {}, conf.database_table_schemas or {})
        self._options = _engine_options(conf)
        callback: Any = conf.database_engine_callback
        self._engine_callback: Any = symbol_by_name(callback) if isinstance(callback, str) else callback
        super().__init__(app, f"db+{found}")
        self._policy = self.retry_policy(RetryPolicy(max_retries=3, start=0.05, longest=2.0))

    def _start_process(self) -> None:
        super()._start_process()
        if self._engine is not None:
            self._engine.dispose(close=False)  # the connections are the parent's
        self._ready = False
        # Many threads may wait for results: they take turns in looking, as the engine's connections are few.
        # Their pauses grow with the time that a look takes, the turn included.
        self._looking = threading.BoundedSemaphore(_LOOKERS)
        self._setting_up = threading.RLock()

    def _read(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        self._check_process()
        with self._looking:
            return super()._read(task_ids)

    # --- the database --------------------------------------------------------------------------

    @property
    def engine(self) -> sa.Engine:
        """The engine of this process.

        Raises:
            ImproperlyConfigured: SQLAlchemy does not understand the URL, or lacks the driver.
        """
        if self._engine is None:
            with self._setting_up:
                if self._engine is None:
                    engine = self._make_engine()
                    if engine.dialect.name == "sqlite":
                        _prepare_sqlite(engine)
                    if self._engine_callback is not None:
                        self._engine_callback(engine)
                    self._engine = engine
        return self._engine

    def _make_engine(self) -> sa.Engine:
        try:
            url = sa.make_url(self._database_url)
        except sa_errors.ArgumentError as exc:
            raise ImproperlyConfigured(f"the result backend {self.url} cannot be used: {exc}") from exc
        options = dict(self._options)
        if url.get_backend_name() in ("mysql", "mariadb"):
            # A poll must see what others have committed since the connection was opened (4STA-18).
            options.setdefault("isolation_level", "READ COMMITTED")
        try:
            return sa.create_engine(url, **options)
        except ImportError as exc:
            # The driver that SQLAlchemy prefers is not installed; another one may be.
            for driver in _OTHER_DRIVERS.get(url.drivername, ()):
                try:
                    return sa.create_engine(url.set(drivername=driver), **options)
                except ImportError:
                    continue
            raise ImproperlyConfigured(
                f"the result backend {self.url} needs a driver that is not installed ({exc}): "
                "for PostgreSQL pip install psycopg, for MySQL and MariaDB pip install pymysql"
            ) from exc

    def create_tables(self) -> None:
        """Create the tables that are missing, and columns that tables of older versions lack."""
        engine = self.engine
        try:
            self.tables.metadata.create_all(engine)
        except sa_errors.DBAPIError:
            # Another process may have created them at the same moment.
            self.tables.metadata.create_all(engine)
        task = self.tables.task
        present = {column["name"] for column in sa.inspect(engine).get_columns(task.name, schema=task.schema)}
        missing = [column for column in task.columns if column.name not in present]
        if missing:
            prepare = engine.dialect.identifier_preparer
            with engine.begin() as connection:
                for column in missing:
                    kind = column.type.compile(engine.dialect)
                    name = prepare.quote(column.name)
                    connection.execute(
                        sa.text(f"ALTER TABLE {prepare.format_table(task)} ADD COLUMN {name} {kind}")
                    )
        self._ready = True

    def setup(self) -> None:
        """Create the tables now when `database_create_tables_at_setup` says so; called by starting workers."""
        if self.app.conf.database_create_tables_at_setup and not self._ready:
            self.create_tables()

    @contextmanager
    def transaction(self, write: bool) -> Iterator[Transaction]:
        if not self._ready:
            with self._setting_up:
                if not self._ready:
                    self.create_tables()
        with self.engine.connect() as plain:
            connection = plain.execution_options(q_write=write)
            with connection.begin():
                yield _Statements(connection, self.tables)

    def run(self, operation: Callable[[Transaction], T], what: str, write: bool) -> T:
        self._check_process()

        def attempt() -> T:
            with self.transaction(write) as transaction:
                return operation(transaction)

        try:
            return self._policy.call(attempt, _is_passing, f"{what} in {self.url}", self._reconnect)
        except sa_errors.SQLAlchemyError as exc:
            error = BackendStoreError if write else BackendGetMetaError
            raise error(f"{what} in the result store {self.url} failed: {exc}") from exc

    def _reconnect(self) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def close(self) -> None:
        super().close()
        if self._engine is not None:
            self._engine.dispose()


class _Statements:
    """`Transaction` on one connection."""

    def __init__(self, connection: sa.Connection, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables
        self._dialect = connection.dialect.name

    def _insert(self, table: sa.Table) -> Any:
        if self._dialect == "postgresql":
            return postgresql.insert(table)
        if self._dialect in ("mysql", "mariadb"):
            return mysql.insert(table)
        if self._dialect == "sqlite":
            return sqlite.insert(table)
        return None

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        task = self._tables.task
        insert = self._insert(task)
        if insert is None:
            self._upsert_slowly(rows)
            return
        changed = COLUMNS[1:]
        if self._dialect in ("mysql", "mariadb"):
            # Assignments take effect from left to right, so the state, which decides, comes last.
            final = task.c.status == "SUCCESS"
            changes = [
                (name, sa.func.if_(final, task.c[name], insert.inserted[name]))
                for name in (*changed[1:], "status")
            ]
            statement = insert.on_duplicate_key_update(changes)
        else:
            statement = insert.on_conflict_do_update(
                index_elements=["task_id"],
                set_={name: insert.excluded[name] for name in changed},
                where=task.c.status != "SUCCESS",
            )
        self._connection.execute(statement, [dict(row) for row in rows])

    def _upsert_slowly(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """For databases whose upsert SQLAlchemy does not know."""
        task = self._tables.task
        for row in rows:
            found = self._connection.execute(
                sa.select(task.c.status).where(task.c.task_id == row["task_id"]).with_for_update()
            ).first()
            if found is None:
                self._connection.execute(task.insert(), [dict(row)])
            elif found[0] != "SUCCESS":
                change = task.update().where(task.c.task_id == row["task_id"])
                self._connection.execute(change.values(**{n: row[n] for n in COLUMNS[1:]}))

    def select(self, task_ids: Sequence[str]) -> list[Mapping[str, Any]]:
        task = self._tables.task
        query = sa.select(*(task.c[name] for name in COLUMNS)).where(task.c.task_id.in_(list(task_ids)))
        return [dict(row) for row in self._connection.execute(query).mappings()]

    def delete_task(self, task_id: str) -> None:
        task = self._tables.task
        self._connection.execute(task.delete().where(task.c.task_id == task_id))

    def put_group(self, group_id: str, result: bytes, now: Any) -> None:
        self.delete_group(group_id)
        self._connection.execute(
            self._tables.group.insert(), [{"taskset_id": group_id, "result": result, "date_done": now}]
        )

    def get_group(self, group_id: str) -> bytes | None:
        group = self._tables.group
        row = self._connection.execute(
            sa.select(group.c.result).where(group.c.taskset_id == group_id)
        ).first()
        return None if row is None else bytes(row[0])

    def delete_group(self, group_id: str) -> None:
        group = self._tables.group
        self._connection.execute(group.delete().where(group.c.taskset_id == group_id))

    def delete_older(self, before: Any) -> None:
        for table in (self._tables.task, self._tables.group):
            self._connection.execute(table.delete().where(table.c.date_done < before))

    def open_chord(self, chord: OpenChord) -> None:
        self.delete_chord(chord.group_id)
        values = {
            "group_id": chord.group_id,
            "size": chord.size,
            "body": chord.body,
            "header": chord.header,
            "claimed": chord.claimed,
        }
        self._connection.execute(self._tables.chord.insert(), [values])

    def lock_chord(self, group_id: str) -> OpenChord | None:
        chord = self._tables.chord
        query = sa.select(chord).where(chord.c.group_id == group_id).with_for_update()
        row = self._connection.execute(query).first()
        return None if row is None else OpenChord(row[0], row[1], bytes(row[2]), bytes(row[3]), row[4])

    def grow_chord(self, group_id: str) -> None:
        chord = self._tables.chord
        grown = chord.update().where(chord.c.group_id == group_id).values(size=chord.c.size + 1)
        self._connection.execute(grown)

    def claim_chord(self, group_id: str, now: float | None) -> None:
        chord = self._tables.chord
        self._connection.execute(chord.update().where(chord.c.group_id == group_id).values(claimed=now))

    def delete_chord(self, group_id: str) -> None:
        for table in (self._tables.chord, self._tables.part):
            self._connection.execute(table.delete().where(table.c.group_id == group_id))

    def add_parts(self, parts: Sequence[Part]) -> None:
        if not parts:
            return
        part = self._tables.part
        # The chord is locked, so nobody else adds parts to it meanwhile.
        groups = {new.group_id for new in parts}
        query = sa.select(part.c.group_id, part.c.task_id, part.c.position).where(part.c.group_id.in_(groups))
        query = query.where(part.c.task_id.in_({new.task_id for new in parts}))
        present = {tuple(row) for row in self._connection.execute(query)}
        wanted = {(new.group_id, new.task_id, new.position): new for new in parts}
        values = [
            {
                "group_id": new.group_id,
                "task_id": new.task_id,
                "position": new.position,
                "state": new.state,
                "result": new.result,
            }
            for key, new in wanted.items()
            if key not in present
        ]
        if values:
            self._connection.execute(part.insert(), values)

    def count_parts(self, group_id: str) -> int:
        part = self._tables.part
        query = sa.select(sa.func.count()).select_from(part).where(part.c.group_id == group_id)
        return int(self._connection.execute(query).scalar_one())

    def parts(self, group_id: str) -> list[Part]:
        part = self._tables.part
        query = sa.select(part).where(part.c.group_id == group_id).order_by(part.c.position)
        return [
            Part(row[0], row[1], row[2], row[3], bytes(row[4])) for row in self._connection.execute(query)
        ]

    def open_chords(self, claimed_before: float) -> list[str]:
        chord = self._tables.chord
        query = sa.select(chord.c.group_id).where(
            sa.or_(chord.c.claimed.is_(None), chord.c.claimed < claimed_before)
        )
        return [row[0] for row in self._connection.execute(query)]


def _prepare_sqlite(engine: sa.Engine) -> None:
    """Let several processes write: transactions that write take the lock at their start, and wait for it.

    A lock that is only taken at the first write after a read fails at once when another process has written.
    """

    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    def begun(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("q_write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", begun)


def _engine_options(conf: Any) -> dict[str, Any]:
    """Arguments of `create_engine`; a pool that keeps no connections takes none of the pool options (C-054)."""
    options = dict(conf.database_engine_options or {})
    if conf.database_short_lived_sessions:
        options["poolclass"] = sa.NullPool
    if options.get("poolclass") is sa.NullPool:
        for name in (
            "pool_size",
            "max_overflow",
            "pool_timeout",
            "pool_recycle",
            "pool_pre_ping",
            "pool_use_lifo",
        ):
            options.pop(name, None)
    return options


def _is_passing(exc: BaseException) -> bool:
    """Lost connections, deadlocks and the like; the statement may be tried again."""
    if isinstance(exc, sa_errors.DBAPIError) and exc.connection_invalidated:
        return True
    return isinstance(exc, _PASSING)
