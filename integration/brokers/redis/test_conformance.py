"""The Redis transports keep the contract of all transports."""

from __future__ import annotations

import pytest
from redis_support import OURS, Broker

from qbrokers.testing import Target, TransportConformance


class TestRedis(TransportConformance):
    @pytest.fixture
    def target(self, broker: Broker) -> Target:
        return Target(broker.url, OURS, {"global_keyprefix": broker.prefix})
