"""Message brokers for kombu that lose nothing: Redis with leases and batches, and embedded SQLite."""

__version__ = "26.1.0"
