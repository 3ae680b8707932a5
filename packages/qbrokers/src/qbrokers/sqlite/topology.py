"""Exchanges, queues, bindings and who listens: stored, and cached until somebody changes them."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from attrs import Factory, define, frozen

DEFAULT_EXCHANGES = {f"amq.{type}": type for type in ("direct", "topic", "fanout")}


@frozen
class QueueRecord:
    """One queue.

    Attributes:
        temporary: Deleted with its last consumer.
        expires_seconds: The queue is deleted when nobody uses it for so long; None means never.
    """

    id: int
    name: str
    temporary: bool
    expires_seconds: float | None


@frozen
class Binding:
    """A queue that takes messages of an exchange."""

    routing_key: str
    queue_id: int


@define
class Topology:
    """What was in the database at `generation`.

    Attributes:
        generation: Counts the changes; 0 is before everything that is stored.
        exchanges: Type by name.
        bindings: By name of the exchange.
        queues: By name.
        ttls: Seconds that a message may wait, by id of the queue, where there is a limit.
        listeners: Tokens of the consumers by id of the queue.
    """

    generation: int = 0
    exchanges: dict[str, str] = Factory(dict)
    bindings: dict[str, list[Binding]] = Factory(dict)
    queues: dict[str, QueueRecord] = Factory(dict)
    ttls: dict[int, float] = Factory(dict)
    listeners: dict[int, list[str]] = Factory(dict)

    def route(self, exchange: str, routing_key: str) -> list[int]:
        """Return the ids of the queues that take a message.

        Raises:
            KeyError: There is no such exchange.
        """
        type = self.exchanges[exchange]
        bindings = self.bindings.get(exchange, ())
        if type == "fanout":
            found = [binding.queue_id for binding in bindings]
        elif type == "topic":
            found = [
                b.queue_id for b in bindings if topic_pattern(b.routing_key).fullmatch(routing_key + ".")
            ]
        else:
            found = [binding.queue_id for binding in bindings if binding.routing_key == routing_key]
        return list(dict.fromkeys(found))

    def tokens(self, queue_ids: Iterable[int]) -> set[str]:
        """Return the tokens of those who consume from one of the queues."""
        listeners = self.listeners
        return {token for queue_id in queue_ids for token in listeners.get(queue_id, ())}


@lru_cache(maxsize=1024)
def topic_pattern(binding_key: str) -> re.Pattern[str]:
    """Return a pattern for routing keys with a dot appended; `*` is one word, `#` any number of words."""
    words = {"*": r"[^.]*\.", "#": r"(?:[^.]*\.)*"}
    return re.compile("".join(words.get(word) or re.escape(word) + r"\." for word in binding_key.split(".")))


def load(connection: sqlite3.Connection, generation: int) -> Topology:
    """Read everything, inside the caller's transaction."""
    topology = Topology(generation)
    execute = connection.execute
    topology.exchanges = DEFAULT_EXCHANGES | dict(execute("SELECT name, type FROM exchange"))
    for exchange, key, queue_id in execute("SELECT exchange, routing_key, queue_id FROM binding"):
        topology.bindings.setdefault(exchange, []).append(Binding(key, queue_id))
    for id, name, temporary, ttl, expires in execute(
        "SELECT id, name, temporary, ttl_seconds, expires_seconds FROM queue"
    ):
        topology.queues[name] = QueueRecord(id, name, bool(temporary), expires)
        if ttl is not None:
            topology.ttls[id] = ttl
    for queue_id, token in execute(
        "SELECT DISTINCT c.queue_id, o.token FROM consumer c JOIN owner o ON o.id = c.owner_id"
    ):
        topology.listeners.setdefault(queue_id, []).append(token)
    return topology


def changed(connection: sqlite3.Connection) -> None:
    """Tell every process, within the caller's transaction, to read the topology again."""
    connection.execute("UPDATE counter SET generation = generation + 1")


def add_queue(connection: sqlite3.Connection, name: str, temporary: bool, arguments: dict[str, Any]) -> None:
    """Create a queue, or renew the time of its last use when it exists."""
    now = time.time()
    if not connection.execute("UPDATE queue SET used = ? WHERE name = ?", (now, name)).rowcount:
        row = (name, temporary, _seconds(arguments, "x-message-ttl"), _seconds(arguments, "x-expires"), now)
        connection.execute(
            "INSERT INTO queue (name, temporary, ttl_seconds, expires_seconds, used) VALUES (?, ?, ?, ?, ?)",
            row,
        )
        changed(connection)


def delete_queues(connection: sqlite3.Connection, queue_ids: Iterable[int]) -> int:
    """Delete queues with messages, bindings, consumers; return the number of waiting messages."""
    deleted = 0
    for queue_id in queue_ids:
        key = (queue_id,)
        deleted += purge(connection, queue_id)
        connection.execute("DELETE FROM message WHERE id IN (SELECT id FROM claimed WHERE queue_id = ?)", key)
        for table in ("claimed", "binding", "consumer"):
            connection.execute(f"DELETE FROM {table} WHERE queue_id = ?", key)
        connection.execute("DELETE FROM queue WHERE id = ?", key)
        changed(connection)
    return deleted


def purge(connection: sqlite3.Connection, queue_id: int) -> int:
    """Delete the messages that wait in a queue, due or not; return their number."""
    key = (queue_id,)
    deleted = 0
    for table in ("ready", "delayed"):
        connection.execute(
            f"DELETE FROM message WHERE id IN (SELECT id FROM {table} WHERE queue_id = ?)", key
        )
        deleted += connection.execute(f"DELETE FROM {table} WHERE queue_id = ?", key).rowcount
    return deleted


def abandoned_queues(connection: sqlite3.Connection) -> list[int]:
    """Return the ids of queues to delete: temporary ones without consumers, and those unused for too long."""
    rows = connection.execute(
        "SELECT id FROM queue WHERE id NOT IN (SELECT queue_id FROM consumer)"
        " AND ((temporary AND had_consumer) OR used + expires_seconds < ?)",
        (time.time(),),
    )
    return [id for (id,) in rows]


def _seconds(arguments: dict[str, Any], name: str) -> float | None:
    milliseconds = arguments.get(name)
    return None if milliseconds is None else float(milliseconds) / 1000
