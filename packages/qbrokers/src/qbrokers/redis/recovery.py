"""Bringing back what others held: consumers of ours whose lease is over, stock consumers past their timeout."""

from __future__ import annotations

import logging
from time import time
from typing import Any

from qbrokers.redis import settling
from qbrokers.redis.keys import Keys
from qbrokers.redis.settling import Link

logger = logging.getLogger(__name__)

BATCH = 100


def put_back_of(wire: Link, keys: Keys, group: str, owner: str) -> int:
    """Put everything a dead owner held back to the heads of its queues, the oldest first.

    Args:
        wire: Connection to the server of the group.
        keys: Names.
        group: Books to look in.
        owner: Owner whose lease is over; nothing happens when it turns out to be alive.

    Returns:
        How many messages went back.
    """
    ordered = tags_of(wire, keys, group, owner)
    total = 0
    # The last batch first: each goes to the head, so the oldest end up in front.
    for start in reversed(range(0, len(ordered), BATCH)):
        batch = ordered[start : start + BATCH]
        total += settling.hand_back(wire, keys, group, batch, counted=True, dead_owner=owner)
    wire.call(b"ZREM", keys.owners(group), owner)
    if total:
        logger.warning("put back %d messages of a consumer that is gone (its lease is over)", total)
    return total


def put_back_forgotten(wire: Link, keys: Keys, group: str, tags: set[str]) -> int:
    """Put back what the books say this process holds, and the process does not know.

    A replica that became the master may have missed that a message was acknowledged, delayed or put aside.
    Nobody will do that again, so the message is delivered again.

    Args:
        wire: Connection to the server of the group.
        keys: Names.
        group: Books the tags are written in.
        tags: What was forgotten.

    Returns:
        How many messages went back.
    """
    ordered = sorted(tags, key=number_of)
    total = 0
    for start in reversed(range(0, len(ordered), BATCH)):
        batch = ordered[start : start + BATCH]
        total += settling.hand_back(wire, keys, group, batch, counted=True)
    if total:
        logger.warning("put back %d messages whose end the new master has not heard of", total)
    return total


def tags_of(wire: Link, keys: Keys, group: str, owner: str) -> list[str]:
    """Tags of everything an owner holds by the books, oldest first."""
    tags: set[str] = set()
    cursor: Any = b"0"
    while True:
        cursor, found = wire.call(
            b"ZSCAN", keys.unacked_index(group), cursor, b"MATCH", f"{owner}:*", b"COUNT", 1000
        )
        tags.update(tag.decode() for tag in found[::2])
        if cursor == b"0":
            return sorted(tags, key=number_of)


def put_back_stale(wire: Link, keys: Keys, group: str, timeout_seconds: float) -> int:
    """Put back what was taken longer ago than the visibility timeout, as stock consumers do.

    Messages whose owner has a lease are not concerned, whatever a clock says: the lease decides.

    Returns:
        How many messages went back.
    """
    now = wire.call(b"TIME")
    # When one of the two clocks was set forward, the other one knows better.
    cutoff = min(int(now[0]) + int(now[1]) / 1e6, time()) - timeout_seconds
    total = 0
    while True:
        found = wire.call(
            b"ZRANGEBYSCORE", keys.unacked_index(group), b"-inf", f"{cutoff:.3f}", b"LIMIT", 0, BATCH
        )
        if not found:
            break
        tags = [tag.decode() for tag in found]
        leased = _leased(wire, keys, group, tags)
        if leased:
            wire.call(
                b"ZADD", keys.unacked_index(group), b"XX", *(part for tag in leased for part in (now[0], tag))
            )
        stale = [tag for tag in tags if tag not in leased]
        total += settling.hand_back(wire, keys, group, stale, counted=True, cutoff=cutoff)
    if total:
        logger.warning("put back %d messages that were not finished within the visibility timeout", total)
    return total


def _leased(wire: Link, keys: Keys, group: str, tags: list[str]) -> set[str]:
    """Those of the tags whose owner is a consumer of ours that has a lease."""
    scores = wire.call(b"ZMSCORE", keys.owners(group), *(tag.partition(":")[0] for tag in tags))
    return {tag for tag, score in zip(tags, scores, strict=True) if score is not None}


def number_of(tag: str) -> int:
    """Number in a tag `<owner>:<number>`; the tags of one owner are older the smaller it is."""
    number = tag.rpartition(":")[2]
    return int(number) if number.isdigit() else 0
