"""A broker embedded in a SQLite file: durable, for several processes of one machine, without a server."""

from .transport import Transport

__all__ = ["Transport"]
