"""kombu's memory transport and the suite: what a plain virtual transport has of the contract."""

from __future__ import annotations

import pytest

from qbrokers.testing import Target, TransportConformance

LACKS = frozenset(
    {
        "batches", "count header", "delays", "delivery count", "event loop", "multiple", "other processes", "priority",
        "put back", "recover", "release",
    }
)  # fmt: skip


class TestMemory(TransportConformance):
    @pytest.fixture
    def target(self) -> Target:
        return Target("memory://", "kombu.transport.memory:Transport", lacks=LACKS)
