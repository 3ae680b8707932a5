"""Replies with which a server turns a command down without having done it, because another one, or a later try,
is right.
"""

from __future__ import annotations

from redis import exceptions

WORDS = frozenset(
    ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS")
)


def refusal(reply: object) -> str:
    """The first word of such a reply; empty for every other one, a lost connection included."""
    if isinstance(reply, exceptions.BusyLoadingError):
        return "LOADING"
    if not isinstance(reply, exceptions.ConnectionError):
        return ""
    word = str(reply).split(" ", 1)[0]
    return word if word in WORDS else ""


def is_refused(reply: object) -> bool:
    return bool(refusal(reply))
