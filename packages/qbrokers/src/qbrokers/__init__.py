"""Message brokers for kombu that lose nothing: Redis with leases and batches, and an embedded SQLite broker."""

__version__ = "26.1.0"
