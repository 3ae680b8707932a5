from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qcore.app import App
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
