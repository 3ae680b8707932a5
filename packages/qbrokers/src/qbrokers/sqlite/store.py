"""The broker's operations on its file: declare, put, claim, settle. Knows nothing of kombu's channels."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import NotFound, PreconditionFailed

from qbrokers.batching import DEAD_LETTER_SUFFIX
from qbrokers.errors import LeaseLost

from . import peers, topology
from .codec import Row, with_headers
from .database import Database
from .messages import Addressed, Claim, Settlement, Wish, claim, drop_expired, put, settle
from .options import Options
from .topology import Topology
from .wakeup import Bells


class Store:
    """All that happens to messages, each method one transaction."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.directory = peers.directory_of(options.path)
        self.database = Database(options)
        self._topology = Topology()
        self._bells = Bells(self.directory)
        self._watch = peers.Watch(self.directory)

    # -- declarations

    def declare_exchange(self, name: str, type: str) -> None:
        """Create an exchange; raises PreconditionFailed when it exists with another type."""
        if self.topology().exchanges.get(name) == type:
            return
        with self._transaction() as connection:
            known = self._fresh(connection).exchanges.get(name)
            if known is None:
                connection.execute("INSERT INTO exchange VALUES (?, ?)", (name, type))
                topology.changed(connection)
            elif known != type:
                raise PreconditionFailed(f"exchange {name!r} is of type {known}, not {type}")

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange and its bindings."""
        with self._transaction() as connection:
            for table, column in (("exchange", "name"), ("binding", "exchange")):
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))
            topology.changed(connection)

    def declare_queue(self, name: str, temporary: bool, arguments: dict[str, object]) -> tuple[int, int]:
        """Create a queue when it is missing; return the numbers of waiting messages and of consumers."""
        with self._transaction() as connection:
            topology.add_queue(connection, name, temporary, arguments)
            queue_id = self._fresh(connection).queues[name].id
            (consumers,) = connection.execute(
                "SELECT count(*) FROM consumer WHERE queue_id = ?", (queue_id,)
            ).fetchone()
        return self.count(name), consumers

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Let an exchange route to a queue; raises NotFound when one of them does not exist."""
        with self._transaction() as connection:
            known = self._fresh(connection)
            if exchange not in known.exchanges:
                raise NotFound(f"no exchange {exchange!r}: declare it before binding {queue!r} to it")
            if queue not in known.queues:
                raise NotFound(f"no queue {queue!r}: declare it before binding it")
            row = (exchange, routing_key, known.queues[queue].id)
            if connection.execute("INSERT OR IGNORE INTO binding VALUES (?, ?, ?)", row).rowcount:
                topology.changed(connection)

    def unbind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Undo `bind`; nothing happens when there is no such binding."""
        with self._transaction() as connection:
            record = self._fresh(connection).queues.get(queue)
            if record is not None:
                row = (exchange, routing_key, record.id)
                connection.execute(
                    "DELETE FROM binding WHERE exchange = ? AND routing_key = ? AND queue_id = ?", row
                )
                topology.changed(connection)

    def delete_queue(self, name: str, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue with its messages, unless it has consumers or messages and that matters.

        Returns:
            The number of waiting messages that were deleted.
        """
        with self._transaction() as connection:
            known = self._fresh(connection)
            record = known.queues.get(name)
            if (
                record is None
                or (if_unused and known.listeners.get(record.id))
                or (if_empty and self.count(name))
            ):
                return 0
            return topology.delete_queues(connection, [record.id])

    def purge(self, name: str) -> int:
        """Delete the waiting messages of a queue; return their number."""
        with self._transaction() as connection:
            record = self._fresh(connection).queues.get(name)
            return topology.purge(connection, record.id) if record else 0

    def count(self, name: str) -> int:
        """Return how many messages wait in a queue, those that are not due included."""
        record = self.topology().queues.get(name)
        if record is None:
            return 0
        rows = self.database.read(
            "SELECT count(*) FROM ready WHERE queue_id = ?"
            " UNION ALL SELECT count(*) FROM delayed WHERE queue_id = ?",
            (record.id, record.id),
        )
        return sum(number for (number,) in rows)

    def topology(self) -> Topology:
        """Return exchanges, queues, bindings as they are now."""
        with self.database.lock:
            generation = self.database.read("SELECT generation FROM counter")[0][0]
            if generation != self._topology.generation:
                with self._transaction() as connection:
                    self._fresh(connection)
            return self._topology

    # -- publishing

    def put(self, messages: Sequence[Addressed]) -> None:
        """Store messages in the queues that they are routed to: all, or none and an exception.

        Raises:
            NotFound: An exchange does not exist.
        """
        if all(message.exchange for message in messages):
            known = self.topology()
            if not any(self._is_wanted(known, message) for message in messages):
                return
        with self._transaction() as connection:
            tokens = self._put_all(connection, messages)
        self._bells.ring(tokens)

    def _is_wanted(self, known: Topology, message: Addressed) -> bool:
        # An event that nobody listens to needs no transaction.
        return bool(_route(known, message.exchange, message.routing_key) or self.options.deadletter_queue)

    def _put_all(self, connection: sqlite3.Connection, messages: Sequence[Addressed]) -> set[str]:
        self._fresh(connection)
        (first,) = connection.execute("SELECT next_message FROM counter").fetchone()
        now = time.time()
        placed: list[tuple[Row, int, float | None]] = []
        for row, exchange, routing_key in messages:
            for queue_id in self._targets(connection, exchange, routing_key):
                ttl = self._topology.ttls.get(queue_id)
                expires = row.expires if ttl is None else min(row.expires or now + ttl, now + ttl)
                placed.append((row, queue_id, expires))
        put(connection, first, placed)
        connection.execute("UPDATE counter SET next_message = ?", (first + len(placed),))
        return self._topology.tokens({queue_id for _, queue_id, _ in placed})

    def _targets(self, connection: sqlite3.Connection, exchange: str, routing_key: str) -> Sequence[int]:
        if exchange:
            found = _route(self._topology, exchange, routing_key)
            if found or not self.options.deadletter_queue:
                return found
            routing_key = self.options.deadletter_queue
        record = self._topology.queues.get(routing_key)
        if record is None:
            # Nothing is lost because its queue was not declared yet.
            topology.add_queue(connection, routing_key, False, {})
            record = self._fresh(connection).queues[routing_key]
        return (record.id,)

    # -- consuming

    def peek(self, queue_ids: Sequence[int]) -> tuple[list[int], float | None]:
        """Return those of the queues that have something ready, and when the next delayed message is due."""
        marks = ",".join("?" * len(queue_ids))
        ready = self.database.read(
            f"SELECT id FROM queue WHERE id IN ({marks})"
            " AND (EXISTS (SELECT 1 FROM ready WHERE queue_id = queue.id)"
            " OR EXISTS (SELECT 1 FROM delayed WHERE queue_id = queue.id AND due <= ?))",
            (*queue_ids, time.time()),
        )
        due = self.database.read(f"SELECT min(due) FROM delayed WHERE queue_id IN ({marks})", queue_ids)[0][0]
        return [id for (id,) in ready], due

    def settle_and_claim(
        self, owner_id: int, settlement: Settlement, wishes: Sequence[Wish]
    ) -> list[list[Claim]]:
        """Settle claimed messages and claim new ones, in one transaction.

        Args:
            owner_id: Whose messages; settling others' has no effect.
            settlement: What became of earlier claims.
            wishes: What to claim.

        Returns:
            The claimed messages, a list for each wish.

        Raises:
            LeaseLost: This owner was declared lost, others have its messages.
        """
        queue_ids: list[int] = []
        with self._transaction() as connection:
            if not connection.execute("UPDATE owner SET beat = beat + 1 WHERE id = ?", (owner_id,)).rowcount:
                raise LeaseLost(self.options.path)
            if settlement:
                queue_ids = settle(connection, owner_id, settlement)
            now = time.time()
            claims = [claim(connection, owner_id, wish, now) for wish in wishes]
            tokens = self._fresh(connection).tokens(queue_ids)
        self._bells.ring(tokens)
        return claims

    def move(self, owner_id: int, message_id: int, suffix: str, headers: Mapping[str, Any]) -> None:
        """Move a claimed message to the end of the queue named as its own and `suffix`, and change its headers.

        Raises:
            KeyError: The message is not the owner's.
        """
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT m.rank, m.expires, m.head, m.body, q.name FROM claimed c JOIN message m ON m.id = c.id"
                " JOIN queue q ON q.id = c.queue_id WHERE c.id = ? AND c.owner_id = ?",
                (message_id, owner_id),
            ).fetchone()
            if found is None:
                raise KeyError(
                    f"message {message_id} is not held any more: its lease ended, or its queue was deleted"
                )
            rank, expires, head, body, name = found
            if suffix:
                # What was put aside is kept until somebody looks at it, in the order of its arrival.
                rank, expires = 0, None
            row = Row(rank, 0.0, expires, with_headers(head, headers), body)
            tokens = self._put_all(connection, [Addressed(row, "", name + suffix)])
            settle(connection, owner_id, Settlement(done=[message_id]))
        self._bells.ring(tokens)

    def put_aside(self, owner_id: int, claim: Claim, queue: str) -> None:
        """Move a claimed message that nobody can read to the end of the queue `<queue>.dead`, as it is."""
        with self._transaction() as connection:
            row = Row(0, 0.0, None, claim.head, claim.body)
            tokens = self._put_all(connection, [Addressed(row, "", queue + DEAD_LETTER_SUFFIX)])
            settle(connection, owner_id, Settlement(done=[claim.id]))
        self._bells.ring(tokens)

    # -- owners

    def join(self, peer: peers.Peer) -> None:
        """Register an owner, and clear away what dead ones left behind."""
        with self._transaction() as connection:
            peer.register(connection, self.options.lease_seconds)
            known = {token for (token,) in connection.execute("SELECT token FROM owner")}
        try:
            peers.remove_orphans(self.directory, known)
        except OSError:
            # Files of the dead do no harm.
            pass
        self.rescue()

    def leave(self, owner_id: int, settlement: Settlement) -> None:
        """Settle, return all other messages of the owner and delete the owner."""
        with self._transaction() as connection:
            queue_ids = settle(connection, owner_id, settlement)
            queue_ids += peers.release(connection, owner_id)
            tokens = self._fresh(connection).tokens(queue_ids)
        self._bells.ring(tokens)

    def listen(self, owner_id: int, tag: str, queue: str) -> int:
        """Register a consumer; return the id of the queue, which is created when it is missing."""
        with self._transaction() as connection:
            if queue not in self._fresh(connection).queues:
                topology.add_queue(connection, queue, False, {})
            queue_id = self._fresh(connection).queues[queue].id
            connection.execute("INSERT INTO consumer VALUES (?, ?, ?)", (owner_id, tag, queue_id))
            connection.execute("UPDATE queue SET had_consumer = 1 WHERE id = ?", (queue_id,))
            topology.changed(connection)
        return queue_id

    def unlisten(self, owner_id: int, tag: str, queue_id: int) -> None:
        """Remove a consumer, and the queue when it is temporary and this was its last consumer."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM consumer WHERE owner_id = ? AND tag = ?", (owner_id, tag))
            connection.execute("UPDATE queue SET used = ? WHERE id = ?", (time.time(), queue_id))
            topology.changed(connection)
            topology.delete_queues(connection, topology.abandoned_queues(connection))

    def beat(self, owner_id: int) -> bool:
        """Renew the lease; return False when the owner was declared lost."""
        with self._transaction() as connection:
            return bool(
                connection.execute("UPDATE owner SET beat = beat + 1 WHERE id = ?", (owner_id,)).rowcount
            )

    def rescue(self) -> int:
        """Return the messages of lost owners to their queues; return the number of such owners."""
        owners = self.database.read("SELECT id, token, lease_seconds, beat FROM owner")
        lost = self._watch.lost(owners)
        for id, token, beat in lost:
            with self._transaction() as connection:
                if not connection.execute(
                    "SELECT 1 FROM owner WHERE id = ? AND beat = ?", (id, beat)
                ).fetchone():
                    # It woke up this moment, or another observer was faster.
                    continue
                tokens = self._fresh(connection).tokens(peers.release(connection, id))
            self._bells.ring(tokens)
            if peers.is_dead(self.directory, token):
                peers.remove_files(self.directory, token)
        return len(lost)

    def tidy(self) -> None:
        """Drop expired messages and abandoned queues, give free pages back to the file system."""
        if self.database.read("SELECT 1 FROM message WHERE expires < ? LIMIT 1", (time.time(),)):
            with self._transaction() as connection:
                drop_expired(connection)
        expirable = "SELECT 1 FROM queue WHERE used + expires_seconds < ? LIMIT 1"
        if self.database.read(expirable, (time.time(),)):
            with self._transaction() as connection:
                topology.delete_queues(connection, topology.abandoned_queues(connection))
        free, pages = (
            self.database.read(f"PRAGMA {name}")[0][0] for name in ("freelist_count", "page_count")
        )
        if free > 1000 and free * 2 > pages:
            self.database.vacuum_some(1000)

    def after_fork_in_child(self) -> None:
        """Let go of the descriptors that the parent opened; the database does so itself."""
        self._bells.forget()

    def close(self) -> None:
        """Close the file and the pipes to others."""
        self._bells.close()
        self.database.close()

    # -- inside

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self.database.transaction() as connection:
                yield connection
        except BaseException:
            # What was read of the topology may have been undone.
            self._topology = Topology()
            raise

    def _fresh(self, connection: sqlite3.Connection) -> Topology:
        (generation,) = connection.execute("SELECT generation FROM counter").fetchone()
        if generation != self._topology.generation:
            self._topology = topology.load(connection, generation)
            self._bells.keep_only({t for tokens in self._topology.listeners.values() for t in tokens})
        return self._topology


def _route(known: Topology, exchange: str, routing_key: str) -> list[int]:
    try:
        return known.route(exchange, routing_key)
    except KeyError:
        raise NotFound(f"no exchange {exchange!r}: declare it before publishing to it") from None
