"""Every way in which the file can be unusable is reported by an error that says what to do."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from sqlite_support import connect, publish, queue

from qbrokers.errors import (
    BrokerUnavailable,
    DatabaseCorrupt,
    DatabaseFull,
    DatabaseGone,
    DatabaseLocked,
    DatabaseReadOnly,
    DatabaseUnreachable,
    NotABroker,
)


def publish_without_end(connection: Any) -> None:
    while True:
        publish(connection, "x" * 5000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


def test_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to have a header" * 100)
    with pytest.raises(DatabaseCorrupt, match="move the file"):
        connect(path).connect()


def test_database_of_another_program_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE accounts (id)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(NotABroker, match="another program"):
        connect(path).connect()
    assert path.read_bytes() == before


def test_database_of_a_newer_version(path: Path) -> None:
    with connect(path) as connection:
        connection.connect()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(NotABroker, match="upgrade"):
        connect(path).connect()


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable, match="directory exists"):
        connect(tmp_path / "missing" / "broker.db").connect()


def test_damaged_pages_are_reported(path: Path) -> None:
    with connect(path) as connection:
        for number in range(200):
            publish(connection, "x" * 1000, priority=number % 10)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with connect(path) as connection, pytest.raises(DatabaseCorrupt):
        publish(connection, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read only for root")
def test_read_only_file_as_user(path: Path) -> None:
    with connect(path) as connection:
        publish(connection, 1)
    path.chmod(0o444)
    with connect(path) as connection, pytest.raises(DatabaseReadOnly, match="writable"):
        publish(connection, 2)


def test_read_only_database_is_reported(path: Path) -> None:
    with connect(path) as connection:
        publish(connection, 1)
        store = connection.connection.store
        store.database.read("PRAGMA query_only = ON")
        with pytest.raises(DatabaseReadOnly, match="writable"):
            store.purge("q")


def test_foreign_lock_is_reported_and_passes(path: Path) -> None:
    with connect(path, busy_timeout_seconds=0.2) as connection:
        publish(connection, 1)
        foreign = sqlite3.connect(path, isolation_level=None)
        foreign.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseLocked, match="busy_timeout_seconds") as caught:
            connection.default_channel.queue_purge("q")
        assert isinstance(caught.value, connection.recoverable_connection_errors)
        foreign.execute("ROLLBACK")
        foreign.close()
        assert connection.default_channel.queue_purge("q") == 1


def test_kombu_retries_a_foreign_lock(path: Path) -> None:
    with connect(path, busy_timeout_seconds=0.1) as connection:
        publish(connection, 1)
        foreign = sqlite3.connect(path, isolation_level=None)
        foreign.execute("BEGIN EXCLUSIVE")
        failures: list[Any] = []

        def on_failure(error: BaseException, interval: float) -> None:
            failures.append(error)
            if foreign.in_transaction:
                foreign.execute("ROLLBACK")

        publish(connection, 2, retry=True, retry_policy={"max_retries": 3, "errback": on_failure})
        foreign.close()
        assert isinstance(failures[0], DatabaseLocked)
        assert connection.default_channel.queue_purge("q") == 2


def test_lock_that_stays_ends_in_an_operational_error(path: Path) -> None:
    with connect(path, busy_timeout_seconds=0.05) as connection:
        publish(connection, 1)
        foreign = sqlite3.connect(path, isolation_level=None)
        foreign.execute("BEGIN EXCLUSIVE")
        policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        with pytest.raises(OperationalError, match=r"broker\.db"):
            publish(connection, 2, retry=True, retry_policy=policy)
        foreign.close()


def test_full_disk_stores_nothing_and_recovers(path: Path) -> None:
    with connect(path, max_bytes=400_000) as connection:
        with pytest.raises(DatabaseFull, match="free disk space"):
            publish_without_end(connection)
        bound = queue()(connection.default_channel)
        stored = bound.queue_declare(passive=True).message_count
        assert stored > 10
        # What is there can be taken, which makes room.
        for _ in range(stored):
            bound.get().ack()
        connection.default_channel.flush()
        publish(connection, "x" * 5000)


def test_batch_on_a_full_disk_is_stored_as_a_whole_or_not_at_all(path: Path) -> None:
    from qbrokers.batching import Publication

    with connect(path, max_bytes=400_000) as connection:
        publish(connection, 0)
        channel = connection.default_channel
        batch = [
            Publication(channel.prepare_message("x" * 5000, content_type="text/plain"), "q", "q")
            for _ in range(100)
        ]
        with pytest.raises(DatabaseFull):
            channel.publish_many(batch)
        assert channel.queue_declare("q", passive=True).message_count == 1


def test_deleted_database_is_noticed_and_made_anew(path: Path) -> None:
    with connect(path) as connection:
        publish(connection, 1)
        path.unlink()
        with pytest.raises(DatabaseGone, match="connect again"):
            connection.default_channel.basic_publish(
                connection.default_channel.prepare_message("x"), exchange="", routing_key="q"
            )
        assert not connection.connected
        # kombu connects again by itself, and declares again what it had declared.
        publish(connection, 2, retry=True, retry_policy={"max_retries": 3})
        assert path.exists()
        assert queue()(connection.default_channel).get(no_ack=True).decode() == 2


def test_replaced_database_is_noticed(path: Path, tmp_path: Path) -> None:
    with connect(tmp_path / "other.db") as other:
        publish(other, "other")
    with connect(path) as connection:
        publish(connection, 1)
        os.replace(tmp_path / "other.db", path)
        with pytest.raises(DatabaseGone):
            connection.connection.store.purge("q")


def test_consumer_notices_the_deleted_database(path: Path) -> None:
    with connect(path, poll_seconds=0.05) as connection:
        connection.Consumer([queue()], callbacks=[print]).consume()
        path.unlink()
        with pytest.raises(DatabaseGone):
            connection.drain_events(timeout=10)


def test_directory_that_cannot_be_written(path: Path) -> None:
    with connect(path) as connection:
        connection.connect()
        Path(f"{path}-peers").write_text("in the way")
        with pytest.raises(BrokerUnavailable, match="cannot write beside it"):
            queue()(connection.default_channel).get()


def test_errors_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(DatabaseFull("/b.db", "detail")))
    assert (error.path, str(error)) == ("/b.db", str(DatabaseFull("/b.db", "detail")))


def test_importing_the_package_imports_no_client_library() -> None:
    program = (
        "import sys, qbrokers, qbrokers.batching, qbrokers.errors, qbrokers.aliases;"
        "sys.exit(any(name in sys.modules for name in ('kombu', 'redis', 'sqlite3')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
