"""The states of a task, the sets they form, and their order.

A task starts PENDING (the state of every unknown id, never stored), is RECEIVED by a worker and STARTED
by one of its processes, and ends in SUCCESS, FAILURE or REVOKED; RETRY leads back to STARTED. Any other
text is a custom state. RECEIVED and REJECTED occur in events only.
"""

from __future__ import annotations

PENDING = "PENDING"
RECEIVED = "RECEIVED"
STARTED = "STARTED"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
REJECTED = "REJECTED"
RETRY = "RETRY"
IGNORED = "IGNORED"

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
"""The task is over; its record may be cached."""
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
"""The result is an exception."""
FAILURE_STATES = EXCEPTION_STATES
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
"""`get()` raises the result."""
ALL_STATES = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

PRECEDENCE: tuple[str | None, ...] = (
    SUCCESS,
    FAILURE,
    None,
    REVOKED,
    STARTED,
    RECEIVED,
    REJECTED,
    RETRY,
    PENDING,
)
"""Highest first; None stands for every custom state."""

_RANKS = {name: rank for rank, name in enumerate(PRECEDENCE)}
_CUSTOM_RANK = _RANKS[None]


def precedence(state: str | None) -> int:
    """Rank of `state`: 0 is the highest, custom states share one rank."""
    return _RANKS.get(state, _CUSTOM_RANK)


class state(str):
    """A state that compares by precedence: `state("SUCCESS") > state("PENDING")`."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
