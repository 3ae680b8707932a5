"""The leases of one process on one server: renewed by heartbeat, and those of dead processes found out.

One command renews the leases of every owner of this process in one group, however many messages they hold. Its
reply names the owners whose lease is over; what they held is put back, unless the living may not have had the time
to renew: the server was away, or its clock was set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from math import inf
from time import monotonic
from typing import Protocol

from qbrokers.redis import recovery
from qbrokers.redis.keys import Keys
from qbrokers.redis.options import Options
from qbrokers.redis.scripts import RENEW, run
from qbrokers.redis.settling import Link
from qbrokers.redis.turn import Turn

logger = logging.getLogger(__name__)

OWNERS_LIFE_SECONDS = 7 * 86400


class Holdings(Protocol):
    """What the leases need of the keeper."""

    def wire(self, group: str) -> Link:
        """Connection to the server of a group."""

    def held_tags(self) -> list[str]:
        """Tags of all messages that this process holds."""

    def consuming_owners(self) -> set[str]:
        """Owners of this process that take messages."""

    def taken_over(self, group: str) -> None:
        """Another server answers for a group than at the last renewal."""


class Leases:
    """When the leases of each group were renewed, and how far what others hold may be judged.

    Args:
        keys: Names on the server.
        options: Transport options.
        holdings: What this process holds; asked only when leases are due.
    """

    def __init__(self, keys: Keys, options: Options, holdings: Holdings) -> None:
        self._keys = keys
        self._options = options
        self._holdings = holdings
        self._beaten: dict[str, float] = {}
        self._sweep_from: dict[str, float] = {}
        self._masters: dict[str, bytes] = {}
        self._hurry = False
        self._long_held: set[str] = set()

    def hurry(self) -> None:
        """Renew all of them at the next beat: after a lost connection the server may be another one."""
        self._hurry = True

    def forget(self) -> None:
        """Nothing is held any more; what is known of the servers will be out of date."""
        for known in (self._beaten, self._sweep_from, self._masters):
            known.clear()

    def beat(self, now: float, groups: Iterable[str], turn: Turn) -> None:
        """Renew the leases that are due, and put back what owners held whose lease is over.

        Args:
            now: The monotonic clock at the begin of the turn.
            groups: Books that this process takes messages from; other threads may add to them.
            turn: The keeper's turn.
        """
        beaten, heartbeat = self._beaten, self._options.heartbeat
        hurry, self._hurry = self._hurry, False
        due = [group for group in tuple(groups) if hurry or now >= beaten.get(group, -inf) + heartbeat]
        if not due:
            return
        stood = max((now - beaten[group] for group in due if group in beaten), default=0.0)
        held = self._holdings.held_tags()
        owners = {tag.partition(":")[0] for tag in held} | self._holdings.consuming_owners()
        long_held = self._long_held.intersection(held)
        for group in due:
            if turn.attempt(group, partial(self._renew, group, owners, long_held)):
                beaten[group] = monotonic()
            else:
                self._hurry = True
        self._long_held = set(held)
        if stood > self._options.lease_seconds and not turn.failed:
            logger.warning(
                "this process could not renew its leases for %.0f s: messages it holds may have gone to others",
                stood,
            )

    def _renew(self, group: str, owners: set[str], long_held: set[str]) -> None:
        keys, options, wire = self._keys, self._options, self._holdings.wire(group)
        lease_ms, life_ms = int(options.lease_seconds * 1000), OWNERS_LIFE_SECONDS * 1000
        passed_ms, renewal_ms = int(self._most_passed(group) * 1000), int(options.heartbeat * 1500)
        _, spare_ms, run_id, *dead = run(
            wire,
            RENEW,
            [keys.owners(group), keys.unacked_index(group)],
            [lease_ms, life_ms, passed_ms, renewal_ms, len(owners), *owners, *long_held],
        )
        if self._masters.setdefault(group, run_id) != run_id:
            self._masters[group] = run_id
            self._holdings.taken_over(group)
        if spare_ms:
            # Not before every living owner had the time to renew since the server came back, or its clock was set.
            self._sweep_from[group] = max(self._sweep_from.get(group, 0.0), monotonic() + spare_ms / 1000)
        if self.may_sweep(group):
            for owner in dead:
                recovery.put_back_of(wire, keys, group, owner.decode())

    def _most_passed(self, group: str) -> float:
        """Seconds that can have passed at most since anybody renewed. More, by the server's clock, means that
        it was set.
        """
        room = self._options.lease_seconds - self._options.heartbeat
        beaten = self._beaten.get(group)
        # The first time nothing is known, and whoever has not renewed for longer is late himself.
        return room if beaten is None else monotonic() - beaten + room / 4

    def spare_others(self, groups: Iterable[str]) -> None:
        """The server of some groups was away: owners that could not renew meanwhile must not be taken for dead
        by the first to come back.
        """
        for group in groups:
            self._sweep_from[group] = monotonic() + self._options.lease_seconds

    def may_sweep(self, group: str) -> bool:
        """Whether what others hold may be put back when it looks abandoned."""
        return monotonic() >= self._sweep_from.get(group, 0.0)
