"""Whether waiting for other tasks is allowed here: not within a task that a worker runs.

A task that waits for tasks holds its slot, and with all slots held so nothing moves any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from qcore import current

_denied: ContextVar[bool | None] = ContextVar("qcore_join_denied", default=None)


def task_join_will_block() -> bool:
    """Whether a wait for results here would block a worker's slot."""
    denied = _denied.get()
    if denied is not None:
        return denied
    request = current.get_worker_request()
    return request is not None and not request.called_directly and not request.is_eager


def assert_will_not_block() -> None:
    """Raise RuntimeError in a running task, unless `allow_join_result` is in force."""
    if task_join_will_block():
        raise RuntimeError(
            "Never call result.get() within a task! It holds the worker's slot while it waits and can stop "
            "the whole cluster: use a callback, a chain or a chord, or allow it with "
            "`with allow_join_result():` if you know that enough workers are free"
        )


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let the block wait for results though it runs in a task."""
    token = _denied.set(False)
    try:
        yield
    finally:
        _denied.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Refuse waiting for results in the block."""
    token = _denied.set(True)
    try:
        yield
    finally:
        _denied.reset(token)
