"""Result stores of the q task queue: database, Redis, rpc."""

__version__ = "26.1.0"
