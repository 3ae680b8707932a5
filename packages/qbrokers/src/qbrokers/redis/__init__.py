"""Redis transports for kombu that lose nothing. `Transport`, `SentinelTransport` and `ClusterTransport` are
what kombu loads.
"""

from __future__ import annotations

from qbrokers.redis.channel import Channel
from qbrokers.redis.cluster import ClusterTransport
from qbrokers.redis.transport import SentinelTransport, Transport

__all__ = ["Channel", "ClusterTransport", "SentinelTransport", "Transport"]
