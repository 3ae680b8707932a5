"""Every way in which the file can be unusable is reported by an error that says what to do."""

from __future__ import annotations

import gc
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


BAD_HEADS = {
    "no JSON": "{[",
    "a list that is too short": "[1]",
    "nested too deeply": "[" * 20_000,
    "headers that are a number": '["text/plain", "utf-8", 5, {}, "", "q"]',
}


@pytest.mark.parametrize("how", ["consume", "no_ack", "get"])
def test_a_message_that_cannot_be_read_is_put_aside_and_the_next_is_served(
    path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with connect(path) as connection:
        for number in range(len(BAD_HEADS) + 1):
            publish(connection, number)
        # A type object with an impossible value is something that anybody can send.
        publish(connection, "typed", headers={"at": {"__type__": "datetime", "__value__": 5}})
        publish(connection, "last")
    with sqlite3.connect(path) as database:
        ids = [id for (id,) in database.execute("SELECT id FROM message ORDER BY id")]
        database.executemany(
            "UPDATE message SET head = ? WHERE id = ?", zip(BAD_HEADS.values(), ids, strict=False)
        )
    database.close()

    got: list[Any] = []
    with connect(path) as connection:
        if how == "get":
            bound = queue()(connection.default_channel)
            while (message := bound.get()) is not None:
                got.append(message.payload)
                message.ack()
        else:

            def receive(message: Any) -> None:
                got.append(message.payload)
                if how == "consume":
                    message.ack()

            with connection.Consumer([queue()], on_message=receive, no_ack=how == "no_ack"):
                while len(got) < 2:
                    connection.drain_events(timeout=10)
        connection.default_channel.flush()
        assert got == [len(BAD_HEADS), "last"]
        assert (
            connection.default_channel.queue_declare("q.dead", passive=True).message_count
            == len(BAD_HEADS) + 1
        )
        assert connection.default_channel.queue_declare("q", passive=True).message_count == 0
    assert caplog.text.count("Put aside in q.dead") == len(BAD_HEADS) + 1
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM claimed").fetchone() == (0,)
        kept = {head for (head,) in database.execute("SELECT head FROM message")}
    database.close()
    assert kept >= set(BAD_HEADS.values())


def test_a_priority_that_is_no_number_is_refused(path: Path) -> None:
    with connect(path) as connection, pytest.raises(ValueError, match="number from 0 to 9, not 'high'"):
        publish(connection, 1, priority="high")


def test_a_truncated_file_is_reported(path: Path) -> None:
    with connect(path) as connection:
        for number in range(100):
            publish(connection, "x" * 1000, priority=number % 10)
    os.truncate(path, path.stat().st_size // 2)
    with connect(path) as connection, pytest.raises(DatabaseCorrupt, match="recover"):
        publish(connection, 1)


def test_a_log_deleted_in_use_loses_nothing(path: Path) -> None:
    """Other processes cannot use the file meanwhile, and get it whole when this one has closed it."""
    with connect(path) as connection:
        publish(connection, 1)
        Path(f"{path}-wal").unlink()
        publish(connection, 2)
    with connect(path) as connection:
        assert connection.default_channel.queue_purge("q") == 2


def test_a_limit_of_the_file_size_stores_nothing_and_damages_nothing(path: Path) -> None:
    program = (
        "import resource, signal, kombu\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"connection = kombu.Connection('sqlite:///{path}', transport='qbrokers.sqlite:Transport')\n"
        "stored = 0\n"
        "try:\n"
        "    while True:\n"
        "        connection.Producer().publish('x' * 5000, routing_key='q')\n"
        "        stored += 1\n"
        "except connection.recoverable_connection_errors as error:\n"
        "    print(stored, error)\n"
        "connection.release()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stored, _, text = done.stdout.partition(" ")
    assert "check that the directory exists, its permissions, and the disk" in text
    with connect(path) as connection:
        assert connection.default_channel.queue_purge("q") == int(stored) > 0


def test_a_connection_that_nobody_closed_closes_its_file(path: Path) -> None:
    connection = connect(path)
    publish(connection, 1)
    file = connection.connection.store.database._connection
    del connection
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        file.execute("SELECT 1")
