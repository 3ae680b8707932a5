"""Redis transports for kombu that lose nothing. `Transport`, `SentinelTransport` and `ClusterTransport` are
what kombu loads.
"""

from __future__ import annotations

try:
    import hiredis  # noqa: F401
    import redis  # noqa: F401
except ImportError as exc:
    raise ImportError(
        f'{exc}; the Redis transport needs redis and hiredis: pip install "qbrokers[redis]"'
    ) from exc

from qbrokers.redis.channel import Channel
from qbrokers.redis.cluster import ClusterTransport
from qbrokers.redis.sentinels import SentinelTransport
from qbrokers.redis.transport import Transport

__all__ = ["Channel", "ClusterTransport", "SentinelTransport", "Transport"]
