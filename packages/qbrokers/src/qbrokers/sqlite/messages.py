"""What happens to messages inside one transaction: put, claim, settle, expire."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import NamedTuple

from attrs import frozen

from .codec import Row

_PUT_MESSAGE = "INSERT INTO message (id, queue_id, rank, expires, head, body) VALUES (?, ?, ?, ?, ?, ?)"
_PUT_READY = "INSERT INTO ready (queue_id, rank, id, deliveries) VALUES (?, ?, ?, 0)"
_PUT_DELAYED = "INSERT INTO delayed (queue_id, due, id, rank) VALUES (?, ?, ?, ?)"
_DUE = (
    "INSERT INTO ready (queue_id, rank, id, deliveries)"
    " SELECT queue_id, rank, id, 0 FROM delayed WHERE queue_id = ? AND due <= ? ORDER BY due, id LIMIT ?"
)
_NOT_DELAYED = (
    "DELETE FROM delayed WHERE (queue_id, due, id) IN"
    " (SELECT queue_id, due, id FROM delayed WHERE queue_id = ? AND due <= ? ORDER BY due, id LIMIT ?)"
)
DUE_BATCH = 1000
"""Most due messages that one claim moves: others wait for the write lock meanwhile."""
_NEXT = (
    "SELECT r.rank, r.id, r.deliveries, m.expires, m.head, m.body"
    " FROM ready r JOIN message m ON m.id = r.id WHERE r.queue_id = ? ORDER BY r.rank, r.id LIMIT ?"
)
_NOT_READY = "DELETE FROM ready WHERE queue_id = ? AND rank = ? AND id = ?"
_CLAIM = "INSERT INTO claimed (id, owner_id, queue_id, rank, deliveries) VALUES (?, ?, ?, ?, ?)"
_DROP_MESSAGE = "DELETE FROM message WHERE id = ?"
_DROP_OWN_MESSAGE = (
    "DELETE FROM message WHERE id = ?"
    " AND EXISTS (SELECT 1 FROM claimed c WHERE c.id = message.id AND c.owner_id = ?)"
)
_DROP_CLAIM = "DELETE FROM claimed WHERE id = ? AND owner_id = ?"
_RETURN = (
    "INSERT INTO ready (queue_id, rank, id, deliveries)"
    " SELECT queue_id, rank, id, deliveries - ? FROM claimed WHERE id = ? AND owner_id = ?"
)
_EXPIRED = (
    "SELECT m.id, m.queue_id, m.rank FROM message m WHERE m.expires < ?"
    " AND NOT EXISTS (SELECT 1 FROM claimed c WHERE c.id = m.id) LIMIT 1000"
)


class Claim(NamedTuple):
    """A message that this owner has now."""

    id: int
    queue_id: int
    earlier_deliveries: int
    head: str
    body: bytes


class Wish(NamedTuple):
    """How many messages a consumer can take from a queue."""

    queue_id: int
    limit: int
    no_ack: bool = False  # claimed and deleted at once


class Addressed(NamedTuple):
    """A row and where it goes."""

    row: Row
    exchange: str
    routing_key: str


@frozen
class Settlement:
    """What became of claimed messages.

    Attributes:
        done: Ids of messages to delete (acknowledged, or rejected for good).
        returned: Ids of delivered messages to put back.
        untouched: Ids of messages to put back that nobody has seen: this was no delivery.
    """

    done: Sequence[int] = ()
    returned: Sequence[int] = ()
    untouched: Sequence[int] = ()

    def __bool__(self) -> bool:
        return bool(self.done or self.returned or self.untouched)


def claim(connection: sqlite3.Connection, owner_id: int, wish: Wish, now: float) -> list[Claim]:
    """Take the next messages of a queue; drop expired ones on the way."""
    queue_id = wish.queue_id
    if connection.execute(_DUE, (queue_id, now, DUE_BATCH)).rowcount:
        connection.execute(_NOT_DELAYED, (queue_id, now, DUE_BATCH))
    claims: list[Claim] = []
    owned, dropped = [], []
    while len(claims) < wish.limit:
        taken = []
        for rank, id, deliveries, expires, head, body in connection.execute(
            _NEXT, (queue_id, wish.limit - len(claims))
        ):
            taken.append((queue_id, rank, id))
            expired = expires is not None and expires <= now
            if not expired:
                claims.append(Claim(id, queue_id, deliveries, head, body))
            if expired or wish.no_ack:
                dropped.append((id,))
            else:
                owned.append((id, owner_id, queue_id, rank, deliveries + 1))
        if not taken:
            break
        connection.executemany(_NOT_READY, taken)
    connection.executemany(_CLAIM, owned)
    connection.executemany(_DROP_MESSAGE, dropped)
    return claims


def put(
    connection: sqlite3.Connection, first: int, messages: Sequence[tuple[Row, int, float | None]]
) -> None:
    """Store messages, each in one queue.

    Args:
        connection: In a transaction.
        first: The number of the first message.
        messages: Row, id of the queue, and epoch seconds when it expires.
    """
    now = time.time()
    bodies, ready, delayed = [], [], []
    for id, (row, queue_id, expires) in enumerate(messages, first):
        bodies.append((id, queue_id, row.rank, expires, row.head, row.body))
        if row.due > now:
            delayed.append((queue_id, row.due, id, row.rank))
        else:
            ready.append((queue_id, row.rank, id))
    connection.executemany(_PUT_MESSAGE, bodies)
    connection.executemany(_PUT_READY, ready)
    connection.executemany(_PUT_DELAYED, delayed)


def settle(connection: sqlite3.Connection, owner_id: int, settlement: Settlement) -> list[int]:
    done = [(id, owner_id) for id in settlement.done]
    connection.executemany(_DROP_OWN_MESSAGE, done)
    connection.executemany(_DROP_CLAIM, done)
    queue_ids: list[int] = []
    for uncounted, ids in ((0, settlement.returned), (1, settlement.untouched)):
        for id in ids:
            queue_ids += [
                q for (q,) in connection.execute("SELECT queue_id FROM claimed WHERE id = ?", (id,))
            ]
            connection.execute(_RETURN, (uncounted, id, owner_id))
            connection.execute(_DROP_CLAIM, (id, owner_id))
    return queue_ids


def drop_expired(connection: sqlite3.Connection) -> None:
    for id, queue_id, rank in connection.execute(_EXPIRED, (time.time(),)).fetchall():
        connection.execute(_NOT_READY, (queue_id, rank, id))
        connection.execute("DELETE FROM delayed WHERE queue_id = ? AND id = ?", (queue_id, id))
        connection.execute(_DROP_MESSAGE, (id,))
