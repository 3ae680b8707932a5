"""The SQLite transport keeps the contract of all transports."""

from __future__ import annotations

from pathlib import Path

import pytest

from qbrokers.testing import Target, TransportConformance


class TestSQLite(TransportConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        return Target(f"sqlite:///{tmp_path}/broker.db", "qbrokers.sqlite:Transport")
