import gc
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbackends.sqlite import SQLiteBackend
from qcore.app import App
from qcore.errors import BackendStoreError, ImproperlyConfigured
from qcore.testing.backends import BackendConformance


class TestSQLite(BackendConformance):
    @pytest.fixture
    def make_app(self, tmp_path: Path) -> Callable[..., Any]:
        url = f"db+sqlite:///{tmp_path / 'results.db'}"
        return lambda **settings: App("conformance", broker="memory://", backend=url, **settings)


class TestSQLiteThroughSQLAlchemy(BackendConformance):
    @pytest.fixture
    def make_app(self, tmp_path: Path) -> Callable[..., Any]:
        url = f"db+sqlite+pysqlite:///{tmp_path / 'results.db'}"
        return lambda **settings: App("conformance", broker="memory://", backend=url, **settings)


def store(app: App) -> SQLiteBackend:
    backend = app.backend
    assert isinstance(backend, SQLiteBackend)
    backend.store_result("1", 42, "SUCCESS")
    return backend


def test_a_dropped_app_closes_its_file(tmp_path: Path) -> None:
    app = App("dropped", backend=f"db+sqlite:///{tmp_path / 'r.db'}", set_as_current=False)
    connection = store(app)._connection
    assert connection is not None
    del app
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_deleted_file_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "r.db"
    url = f"db+sqlite:///{path}"
    with App("one", backend=url, set_as_current=False) as app:
        store(app)
        path.unlink()
        with caplog.at_level(logging.WARNING):
            app.backend.store_result("2", 43, "SUCCESS")
        assert "was deleted or replaced" in caplog.text
        with App("two", backend=url, set_as_current=False) as other:
            assert other.AsyncResult("2").get(timeout=5) == 43


@pytest.mark.parametrize(
    "content", [b"no database at all, and long enough" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(content)
    app = App("broken", backend=f"db+sqlite:///{path}", set_as_current=False)
    with pytest.raises(BackendStoreError, match=r"r\.db.*not a database; move the file"):
        store(app)
    with pytest.raises(BackendStoreError, match="storing results"):
        app.close()  # what could not be stored is not forgotten
    assert path.read_bytes() == content


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    app = App("missing", backend=f"db+sqlite:///{tmp_path}/no/r.db", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="does its directory exist"):
        store(app)


def test_a_timeout_is_a_number(tmp_path: Path) -> None:
    app = App("slow", backend=f"db+sqlite:///{tmp_path}/r.db?timeout=soon", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="number of seconds, not 'soon'"):
        store(app)


def test_a_forked_child_leaves_the_connection_of_its_parent_open(tmp_path: Path) -> None:
    with App("parent", backend=f"db+sqlite:///{tmp_path}/r.db", set_as_current=False) as app:
        backend = store(app)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                backend.store_result("2", 43, "SUCCESS")
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        backend.store_result("3", 44, "SUCCESS")
        assert app.AsyncResult("2").get(timeout=5) == 43
