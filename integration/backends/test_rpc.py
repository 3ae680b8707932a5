"""Results as messages over real brokers."""

from __future__ import annotations

import pytest

from qbackends.testing import RPCTests


class TestOverRabbitMQ(RPCTests):
    @pytest.fixture
    def broker_url(self, amqp_url: str) -> str:
        return amqp_url


class TestOverRedis(RPCTests):
    @pytest.fixture
    def broker_url(self, redis_url: str) -> str:
        return redis_url
