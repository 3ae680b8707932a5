"""Errors of the pools.

::

    PoolError (RuntimeError)
    +-- PoolClosed           work was submitted after close()
    +-- LimitUnsupported     (also ValueError) this pool cannot do what an option or a limit asks
    +-- PoolUnavailable      (also ImportError) the pool's client library is not installed
"""

from __future__ import annotations


class PoolError(RuntimeError):
    """Root of the errors of this package."""


class PoolClosed(PoolError):
    """Work was submitted to a pool that takes no more."""

    def __init__(self, pool: str) -> None:
        super().__init__(f"the {pool} pool is closed and takes no more work; make a new pool")


class LimitUnsupported(PoolError, ValueError):
    """An option asks for something that this kind of pool cannot do."""

    def __init__(self, pool: str, what: str, instead: str) -> None:
        super().__init__(f"the {pool} pool does not support {what}; {instead}")


class PoolUnavailable(PoolError, ImportError):
    """The library that a pool is built on is not installed."""

    def __init__(self, pool: str, package: str) -> None:
        super().__init__(f"the {pool} pool needs {package}: pip install qworker[{pool}]")
