"""The keeper: one thread per process and server that keeps leases alive and brings lost messages back.

A program may stay in a task for an hour without looking at its connection; the leases of what it holds must
be renewed all the same, so this is done by a thread with a connection of its own. It

* renews the leases of every owner of this process (one command, however many messages are held),
* puts back what owners of dead processes held,
* puts back what stock consumers left behind longer ago than the visibility timeout,
* keeps the messages of a lost connection held, sends their acknowledgements, and puts a message back when
  the program has dropped it (nobody refers to it any more, so nobody can acknowledge it),
* counts what a claim took whose reply was lost, and puts it back,
* sends settlements that a program noted and did not flush for a while.
"""

from __future__ import annotations

import gc
import logging
import random
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from time import monotonic
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import ReferenceType, WeakSet, ref

from qbrokers.redis import recovery, settling
from qbrokers.redis.keys import Keys
from qbrokers.redis.leases import Leases
from qbrokers.redis.options import Options
from qbrokers.redis.servers import Server
from qbrokers.redis.session import Session, send_settlements
from qbrokers.redis.settling import Link, Settlement
from qbrokers.redis.turn import Turn
from qbrokers.redis.wire import CHANNEL_ERRORS, CONNECTION_ERRORS, Wire

logger = logging.getLogger(__name__)

FENCE_SECONDS = 3600
STALE_INTERVAL_SECONDS = 60.0
TICK_SECONDS = 0.25
_BATCH = 100

Item = TypeVar("Item")


class Claim(NamedTuple):
    """A claim whose reply was lost: it may have taken the messages with these numbers."""

    owner: str
    group: str
    first: int
    size: int


class Holder(Protocol):
    """What the keeper needs of a channel."""

    def held_tags(self) -> list[str]:
        """Tags of the messages it holds."""


class Keeper:
    """What one process holds on one server.

    Args:
        server: Where the server is.
        keys: Names on the server.
        options: Transport options of the first connection to it.
    """

    def __init__(self, server: Server, keys: Keys, options: Options) -> None:
        self._server = server
        self._keys = keys
        self._options = options
        self._sessions: WeakSet[Session] = WeakSet()
        self._groups: set[str] = set()
        self._consuming: WeakSet[Session] = WeakSet()
        self._holders: WeakSet[Holder] = WeakSet()
        self._orphans: dict[str, tuple[str, ReferenceType[Any]]] = {}
        self._returns: deque[tuple[str, str, bool]] = deque()
        self._lost_claims: deque[Claim] = deque()
        self._settlements: deque[Settlement] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._wire = self.new_wire()
        self._leases = Leases(keys, options, self)
        self._stale_at = 0.0
        self._taken_over: dict[str, set[str] | None] = {}
        self._collect_at: float | None = None
        self._waiting: dict[Session, Settlement] = {}
        self.version_checked = False

    def new_wire(self) -> Wire:
        return Wire(self._server.connect, self._options.socket_timeout)

    def wire(self, group: str) -> Link:
        """Connection to the server of a group."""
        return self._wire

    def place(self, group: str) -> object:
        """What stands for the server of a group."""
        return ""

    def close_wires(self) -> None:
        self._wire.close()

    # -- called by sessions and channels

    def consuming(self, session: Session, holder: Holder, groups: Iterable[str]) -> None:
        """A channel begins to take messages.

        Args:
            session: Its session.
            holder: The channel: gives `held_tags()`.
            groups: Books its queues are written in.
        """
        with self._lock:
            self._sessions.add(session)
            self._consuming.add(session)
            self._holders.add(holder)
            self._groups.update(groups)
            self._start()

    def closed(self, session: Session) -> None:
        """A connection was closed in good order; its owner id is not renewed any more."""
        with self._lock:
            self._consuming.discard(session)
            self._sessions.discard(session)
            self._settlements.extend(session.take_settlements())
        self._wake.set()

    def adopt(self, session: Session, held: Sequence[tuple[str, str, Any]]) -> None:
        """Keep the messages of a lost connection.

        Args:
            session: Session that is given up.
            held: Tag, group and message of each. The messages are referred to weakly.
        """
        with self._lock:
            for tag, group, message in held:
                self._groups.add(group)
                self._orphans[tag] = (group, ref(message))
            self._settlements.extend(session.take_settlements())
            self._collect_at = monotonic() + 1.0
            self._leases.hurry()
            self._start()
        self._wake.set()

    def settle(self, settlement: Settlement) -> None:
        """Settle a message whose connection is gone."""
        self._settlements.append(settlement)
        self._orphans.pop(settlement.tag, None)
        with self._lock:
            self._start()
        self._wake.set()

    def put_back(self, tags: Iterable[tuple[str, str]], *, counted: bool) -> None:
        """Put messages (tag, group) back as soon as the server can be reached."""
        with self._lock:
            self._returns.extend((tag, group, counted) for tag, group in tags)
            self._start()
        self._wake.set()

    def lost_claim(self, claim: Claim) -> None:
        with self._lock:
            self._groups.add(claim.group)
            self._lost_claims.append(claim)
            self._start()
        self._wake.set()

    def group_of(self, tag: str) -> str:
        """Books of a message that is held for a connection that is gone."""
        return self._orphans[tag][0] if tag in self._orphans else ""

    @property
    def orphans(self) -> int:
        """Number of messages held for connections that are gone."""
        return len(self._orphans)

    # -- the thread

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="qbrokers-keeper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        failures = 0
        while True:
            pause = TICK_SECONDS if not failures else min(5.0, 0.25 * 2**failures) * random.uniform(0.7, 1.0)
            self._wake.wait(pause)
            self._wake.clear()
            with self._lock:
                if not self._needed():
                    self._thread = None
                    self.close_wires()
                    self._stale_at = 0.0
                    self._leases.forget()
                    self._taken_over.clear()
                    return
            try:
                self._work()
                failures = 0
            except CONNECTION_ERRORS as exc:
                failures += 1
                self._on_failure(failures, exc)
            except CHANNEL_ERRORS as exc:
                failures += 1
                logger.error("the server refused to renew leases: %s; trying again", exc)
            except Exception:
                # The leases of everything this process holds hang on this thread, so it must not end.
                failures += 1
                logger.exception("renewing leases failed; trying again")

    def _needed(self) -> bool:
        return bool(
            self._consuming or self._orphans or self._settlements or self._returns or self._lost_claims
        )

    def _on_failure(self, failures: int, exc: BaseException) -> None:
        self.after_failure()
        level = logging.WARNING if failures == 3 else logging.DEBUG
        logger.log(level, "leases cannot be renewed: %s; trying again, held messages stay held", exc)

    def after_failure(self) -> None:
        """Begin anew with the connections."""
        self.close_wires()

    def _work(self) -> None:
        now = monotonic()
        turn = Turn(self.place)
        # The leases first: nothing else may hold them up.
        self._leases.beat(now, self._groups, turn)
        self._send(turn)
        self._count_lost_claims(turn)
        self._reconcile(turn)
        self._look_for_dropped(now)
        self._send_returns(turn)
        self._put_back_stale(now, turn)
        self._leases.spare_others(turn.failed)
        if turn.failure is not None:
            raise turn.failure

    def _send(self, turn: Turn) -> None:
        """Settlements of connections that are gone, and of programs that have not come back to their
        connection.
        """
        settlements = _drain(self._settlements)
        waiting: dict[Session, Settlement] = {}
        for session in self._snapshot(self._consuming):
            try:
                head = session.settlements[0]
            except IndexError:
                continue
            if self._waiting.get(session) is head:
                settlements += session.take_settlements()
            else:
                waiting[session] = head
        self._waiting = waiting
        by_group: dict[str, list[Settlement]] = defaultdict(list)
        for settlement in settlements:
            by_group[settlement.group].append(settlement)
        while by_group:
            group, part = by_group.popitem()
            try:
                sent = turn.attempt(group, partial(send_settlements, self.wire, self._keys, part))
            except BaseException:
                self._settlements.extendleft(reversed([*part, *chain.from_iterable(by_group.values())]))
                raise
            if not sent:
                self._settlements.extendleft(reversed(part))

    def _count_lost_claims(self, turn: Turn) -> None:
        for _ in range(len(self._lost_claims)):
            claim = self._lost_claims[0]
            done = turn.attempt(claim.group, partial(self._count_lost_claim, claim))
            self._lost_claims.popleft()
            if not done:
                self._lost_claims.append(claim)

    def _count_lost_claim(self, claim: Claim) -> None:
        wire = self.wire(claim.group)
        # From here on the server refuses the claim, should it still be under way; what it took can be
        # counted.
        wire.call(b"SET", self._keys.fence(claim.group, claim.owner), 1, b"EX", FENCE_SECONDS)
        tags = [f"{claim.owner}:{claim.first + i}" for i in range(claim.size)]
        known = set(self.held_tags())
        unknown = [tag for tag in tags if tag not in known]
        found = settling.hand_back(wire, self._keys, claim.group, unknown, counted=False)
        if found:
            logger.info("put back %d messages of a claim whose reply was lost", found)

    def _reconcile(self, turn: Turn) -> None:
        """Compare the books of a server that has taken over with what this process holds."""
        for group in tuple(self._taken_over):
            turn.attempt(group, partial(self._reconcile_group, group))

    def _reconcile_group(self, group: str) -> None:
        held = {*self._orphans, *self._tags_of_channels()}
        sessions = self._snapshot(self._consuming)
        noted = (self._settlements, *(session.settlements for session in sessions))
        known = held | {settlement.tag for each in noted for settlement in tuple(each)}
        # An owner that still takes messages has lost no connection.
        owners = {tag.partition(":")[0] for tag in held} - {session.owner for session in sessions}
        wire, keys = self.wire(group), self._keys
        found = {tag for owner in owners for tag in recovery.tags_of(wire, keys, group, owner)} - known
        before = self._taken_over[group]
        if before is None and found:
            # One of them may be on its way to be settled just now; the next look will tell.
            self._taken_over[group] = found
            return
        if before is not None:
            recovery.put_back_forgotten(wire, keys, group, found & before)
        del self._taken_over[group]

    def _look_for_dropped(self, now: float) -> None:
        if not self._orphans:
            self._collect_at = None
            return
        if self._collect_at is not None and now >= self._collect_at:
            # Requests and messages refer to each other; dropped ones are found by a collection.
            gc.collect()
            self._collect_at = now + self._options.lease_seconds
        for tag, (group, message) in tuple(self._orphans.items()):
            if message() is None and self._orphans.pop(tag, None) is not None:
                self._returns.append((tag, group, True))

    def _send_returns(self, turn: Turn) -> None:
        parts: dict[tuple[str, bool], list[str]] = defaultdict(list)
        while self._returns:
            tag, group, counted = self._returns.popleft()
            parts[group, counted].append(tag)
        for (group, counted), tags in parts.items():
            tags.sort(key=recovery.number_of)
            # The last ones first: each goes to the head, so the oldest end up in front.
            for start in reversed(range(0, len(tags), _BATCH)):
                batch = tags[start : start + _BATCH]
                if not turn.attempt(group, partial(self._hand_back, group, batch, counted)):
                    self._returns.extend((tag, group, counted) for tag in batch)

    def _hand_back(self, group: str, tags: Sequence[str], counted: bool) -> None:
        settling.hand_back(self.wire(group), self._keys, group, tags, counted=counted)

    def _put_back_stale(self, now: float, turn: Turn) -> None:
        if now < self._stale_at:
            return
        spared = [group for group in tuple(self._groups) if not self._leases.may_sweep(group)]
        for group in self._groups.difference(spared):
            turn.attempt(group, partial(self._put_back_stale_of, group))
        if not spared:
            self._stale_at = now + STALE_INTERVAL_SECONDS

    def _put_back_stale_of(self, group: str) -> None:
        recovery.put_back_stale(self.wire(group), self._keys, group, self._options.visibility_timeout)

    def _snapshot(self, items: WeakSet[Item]) -> tuple[Item, ...]:
        with self._lock:
            return tuple(items)

    # -- what is held

    def held_tags(self) -> list[str]:
        """Tags of all messages that this process holds."""
        return list(self._orphans) + self._tags_of_channels()

    def _tags_of_channels(self) -> list[str]:
        return [tag for holder in self._snapshot(self._holders) for tag in holder.held_tags()]

    def consuming_owners(self) -> set[str]:
        """Owners of this process that take messages."""
        return {session.owner for session in self._snapshot(self._consuming)}

    def taken_over(self, group: str) -> None:
        """Another server answers for a group: its books may say other things than the last one's."""
        self._taken_over[group] = None


def _drain(items: deque[Settlement]) -> list[Settlement]:
    taken = []
    while items:
        taken.append(items.popleft())
    return taken
