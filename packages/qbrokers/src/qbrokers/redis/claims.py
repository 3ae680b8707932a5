"""Claims: which queues a channel takes messages from, and the command that takes them."""

from __future__ import annotations

import json
from typing import Any, Protocol

from qbrokers.redis.keeper import Claim, Keeper
from qbrokers.redis.leases import OWNERS_LIFE_SECONDS
from qbrokers.redis.scripts import CLAIM
from qbrokers.redis.session import Session
from qbrokers.redis.wire import CONNECTION_ERRORS, Command, pack

DUE_BATCH = 200
"""Most due messages that one claim moves to a queue."""


class Taker(Protocol):
    """What the intake needs of a channel."""

    under_way: int
    """Messages that claims under way may bring; counted by the intake."""

    def capacity(self) -> int:
        """How many messages may be taken now, those under way not counted."""

    def refreshing(self, now: float) -> list[Command]:
        """Commands that keep expiring queues alive."""

    def claimed(self, queue: str, raw: bytes, tag: str, server_time: float) -> None:
        """A message was taken."""


class Claiming:
    """The claims of one channel in one group of queues.

    Args:
        session: Session of the channel.
        taker: The channel.
        group: Books the queues are written in.
        queues: Name and "consumed without acknowledgement" of each queue, in order of consumption.
    """

    def __init__(self, session: Session, taker: Taker, group: str, queues: list[tuple[str, bool]]) -> None:
        keys, options = session.keys, session.options
        self.taker = taker
        self.group = group
        self.armed = False
        self.look_at = 0.0
        self.expect_empty = True
        self.busy = False
        self.refusals = 0
        self._session = session
        self._fair = options.queue_order_strategy == "round_robin"
        if options.queue_order_strategy == "sorted":
            queues = sorted(queues)
        self._rotations = [queues[i:] + queues[:i] for i in range(len(queues) if self._fair else 1)]
        self._turn = 0
        lists = [name.encode() for queue, _ in queues for name in keys.lists(queue)]
        self.delayed = frozenset(keys.delayed(queue).encode() for queue, _ in queues)
        self.lists = frozenset(lists)
        self._arm = pack((b"CLIENT", b"CACHING", b"YES")) + pack((b"EXISTS", *lists, *sorted(self.delayed)))
        self._prepared = [self._prepare(queues) for queues in self._rotations]

    def _prepare(self, queues: list[tuple[str, bool]]) -> tuple[list[str], tuple[Any, ...], tuple[Any, ...]]:
        keys, steps = self._session.keys, self._session.keys.steps
        names = [queue for queue, _ in queues]
        script_keys = [keys.unacked(self.group), keys.unacked_index(self.group), keys.owners(self.group)]
        tail = [keys.delayed(name) for name in names]
        tail += [keys.list_of_step(name, step) for step in steps for name in names]
        arguments: list[Any] = [
            1 if self._fair else 0,
            len(names),
            len(steps),
            DUE_BATCH,
            OWNERS_LIFE_SECONDS * 1000,
        ]
        for name, no_ack in queues:
            arguments += (json.dumps(name), 1 if no_ack else 0)
        return names, (*script_keys, tail), (*arguments, *steps)

    def parts(self, wanted: int) -> tuple[Claim, list[str], list[Any]]:
        """A claim of so many messages: its numbers, and the script's keys and arguments."""
        session = self._session
        first = session.reserve(wanted)
        self._turn = (self._turn + 1) % len(self._prepared)
        _, (unacked, index, owners, tail), arguments = self._prepared[self._turn]
        fence = session.keys.fence(self.group, session.owner)
        lease_ms = int(session.options.lease_seconds * 1000)
        return (
            Claim(session.owner, self.group, first, wanted),
            [unacked, index, owners, fence, *tail],
            [session.owner, lease_ms, first, wanted, *arguments],
        )

    def command(self, wanted: int, arm: bool) -> tuple[Claim, bytes]:
        """A claim of so many messages, and its packed commands.

        Args:
            wanted: Most messages to take.
            arm: Whether to ask for news of the queues first.
        """
        claim, keys, arguments = self.parts(wanted)
        packed: bytes = pack((b"EVALSHA", CLAIM.sha, len(keys), *keys, *arguments))
        return claim, self._arm + packed if arm else packed

    @property
    def names(self) -> list[str]:
        """Queues in the order of the claim under way, as its reply numbers them."""
        return self._prepared[self._turn][0]

    def wants(self, now: float) -> int:
        if self.busy or (self.armed and now < self.look_at):
            return 0
        return self.taker.capacity()


def claim_one(
    session: Session, keeper: Keeper, taker: Taker, queue: str, no_ack: bool
) -> tuple[bytes, str, float] | None:
    """Take one message now and wait for it.

    Returns:
        The envelope, its tag and the server's time in epoch seconds; None when the queue is empty.

    Raises:
        redis.exceptions.ConnectionError: The connection is lost; what the claim took goes back.
    """
    group = session.keys.group(queue)
    claiming = Claiming(session, taker, group, [(queue, no_ack)])
    claim, keys, arguments = claiming.parts(1)
    try:
        reply = session.run(group, CLAIM, keys, arguments)
    except CONNECTION_ERRORS:
        keeper.lost_claim(claim)
        raise
    if len(reply) < 4:
        return None
    return reply[3], f"{claim.owner}:{claim.first}", reply[0] / 1000
