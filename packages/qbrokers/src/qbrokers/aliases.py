"""Makes plain kombu, and so plain Celery, know the transports of qbrokers by a URL.

    import qbrokers.aliases
    qbrokers.aliases.install()
    kombu.Connection("sqlite:///broker.db")

Nothing happens when this module is imported.
"""

from __future__ import annotations

NAMES = {
    "sqlite": "qbrokers.sqlite:Transport",
    "qsqlite": "qbrokers.sqlite:Transport",
    "qredis": "qbrokers.redis:Transport",
    "qrediss": "qbrokers.redis:Transport",
    "qsentinel": "qbrokers.redis:SentinelTransport",
    "rediscluster": "qbrokers.redis:ClusterTransport",
    "qrediscluster": "qbrokers.redis:ClusterTransport",
    "qamqp": "qbrokers.amqp:Transport",
    "qamqps": "qbrokers.amqp:SSLTransport",
}
"""URL schemes that kombu has no transport for, and what serves them."""

REPLACEMENTS = {
    "redis": "qbrokers.redis:Transport",
    "rediss": "qbrokers.redis:Transport",
    "sentinel": "qbrokers.redis:SentinelTransport",
    "amqp": "qbrokers.amqp:Transport",
    "pyamqp": "qbrokers.amqp:Transport",
    "amqps": "qbrokers.amqp:SSLTransport",
}
"""URL schemes that kombu serves itself, and what can serve them instead."""


def install(*, replace: bool = False) -> None:
    """Register the URL schemes `NAMES` with kombu in this process.

    Args:
        replace: Whether `redis://`, `amqp://` and the like mean our transports as well, for
            programs whose URLs cannot be changed.
    """
    from kombu import transport  # not needed by whoever reads the names only

    names = NAMES | REPLACEMENTS if replace else NAMES
    transport.TRANSPORT_ALIASES.update(names)
    for name in names:
        # kombu remembers what a name meant.
        transport._transport_cache.pop(name, None)
