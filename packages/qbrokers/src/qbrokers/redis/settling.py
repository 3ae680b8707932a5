"""Taking messages off the books: acknowledged, handed back, delayed again or put aside, many in one round
trip.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from qbrokers import jsoncodec
from qbrokers.redis import messages
from qbrokers.redis.keys import Keys
from qbrokers.redis.refusals import is_refused
from qbrokers.redis.scripts import SETTLE, run
from qbrokers.redis.wire import Command

logger = logging.getLogger(__name__)

ACK = "-"
BACK = "L"
"""To the end of the queue: the last to be taken."""
FRONT = "R"
"""To the head of the queue: the next to be taken."""
DELAY = "Z"


class Link(Protocol):
    """A connection to the server of one group: a `Wire`, or the `Route` to it in a cluster."""

    def call(self, *command: Any) -> Any:
        """Send one command and return its reply."""

    def pipeline(self, commands: Sequence[Command], *, raise_errors: bool = True) -> list[Any]:
        """Send many commands in one round trip and return their replies."""


class Settlement(NamedTuple):
    """What becomes of one held message.

    Attributes:
        tag: Tag it is held under.
        group: Books it is written in, see `Keys.group`.
        mode: `ACK`, `BACK`, `FRONT` or `DELAY`.
        key: Where it goes; empty for `ACK`.
        due_ms: Epoch milliseconds, for `DELAY`.
        raw: Envelope, or member of the delayed set.
    """

    tag: str
    group: str
    mode: str = ACK
    key: str = ""
    due_ms: int = 0
    raw: bytes = b""


def commands(settlements: Iterable[Settlement], keys: Keys) -> list[tuple[str, Command]]:
    """The commands, each with its group, that settle all of them; safe to send again."""
    acks: dict[str, list[str]] = defaultdict(list)
    moves: dict[str, list[Settlement]] = defaultdict(list)
    for settlement in settlements:
        if settlement.mode == ACK:
            acks[settlement.group].append(settlement.tag)
        else:
            moves[settlement.group].append(settlement)
    made: list[tuple[str, Command]] = []
    for group, tags in acks.items():
        made.append((group, (b"HDEL", keys.unacked(group), *tags)))
        made.append((group, (b"ZREM", keys.unacked_index(group), *tags)))
    for group, moved in moves.items():
        script_keys, arguments = _move(moved, keys, group, "", "")
        made.append((group, (b"EVALSHA", SETTLE.sha, len(script_keys), *script_keys, *arguments)))
    return made


def _move(
    moved: Sequence[Settlement], keys: Keys, group: str, dead_owner: str, cutoff: str
) -> tuple[list[str], list[Any]]:
    script_keys = [keys.unacked(group), keys.unacked_index(group), keys.owners(group)]
    numbers: dict[str, int] = {}
    arguments: list[Any] = [dead_owner, cutoff]
    for settlement in moved:
        number = 0
        if settlement.key:
            number = numbers.get(settlement.key, 0)
            if not number:
                script_keys.append(settlement.key)
                number = numbers[settlement.key] = len(script_keys)
        arguments += (settlement.tag, settlement.mode, number, settlement.due_ms, settlement.raw)
    return script_keys, arguments


class Confirmation:
    """Waits for the replies to all commands of some settlements, and is called with each; with None when the
    connection was lost before.

    Args:
        settlements: What the commands settle.
        replies: How many commands they are.
        put_back: Gets them when their connection was lost before the last reply: they are noted again.
        again: Gets each of them when a reply was an error: it is sent again later, with pauses.
    """

    __slots__ = ("_again", "_error", "_left", "_put_back", "_settlements")

    def __init__(
        self,
        settlements: Sequence[Settlement],
        replies: int,
        put_back: Callable[[Sequence[Settlement]], object],
        again: Callable[[Settlement], object],
    ) -> None:
        self._settlements = settlements
        self._left = replies
        self._put_back = put_back
        self._again = again
        self._error: Exception | None = None

    def __call__(self, reply: Any) -> None:
        self._left -= 1
        if isinstance(reply, Exception):
            self._error = reply
        if self._left:
            return
        if reply is None:
            self._put_back(self._settlements)
        elif self._error is not None:
            # A settlement sent twice does nothing the second time.
            if not str(self._error).startswith("NOSCRIPT") and not is_refused(self._error):
                logger.error("the server refused to settle messages: %s; trying again", self._error)
            for settlement in self._settlements:
                self._again(settlement)


def hand_back(
    wire: Link,
    keys: Keys,
    group: str,
    tags: Sequence[str],
    *,
    counted: bool,
    dead_owner: str = "",
    cutoff: float | None = None,
) -> int:
    """Put held messages back to the head of their queues; those that are not held any more are skipped.

    Args:
        wire: Connection to the server of the group.
        keys: Names.
        group: Books the tags are written in.
        tags: Held messages, oldest first.
        counted: Whether the delivery counts as one.
        dead_owner: Do nothing if this owner turns out to be alive.
        cutoff: Skip tags delivered later than this (epoch seconds).

    Returns:
        How many were handed back.
    """
    if not tags:
        return 0
    entries = wire.call(b"HMGET", keys.unacked(group), *tags)
    moved: list[Settlement] = []
    for tag, entry in zip(reversed(tags), reversed(entries), strict=True):
        if entry is None:
            if cutoff is not None:
                moved.append(Settlement(tag, group))  # an index entry without a message: clear it away
            continue
        moved.append(_returns(wire, keys, group, tag, entry, counted))
    if not moved:
        return 0
    guard = "" if cutoff is None else f"{cutoff:.3f}"
    script_keys, arguments = _move(moved, keys, group, dead_owner, guard)
    return max(0, int(run(wire, SETTLE, script_keys, arguments)))


def _returns(wire: Link, keys: Keys, group: str, tag: str, entry: bytes, counted: bool) -> Settlement:
    """The way back of one entry `[envelope, exchange, routing_key]` of the books."""
    try:
        envelope, exchange, routing_key = _split(entry)
    except (ValueError, UnicodeDecodeError) as exc:
        aside = keys.dead(group or "unacked")
        logger.error(
            "put aside in %s: an entry of %s that makes no sense (%s)", aside, keys.unacked(group), exc
        )
        return Settlement(tag, group, BACK, aside, 0, entry)
    queue = _target(wire, keys, exchange, routing_key) if exchange else routing_key
    try:
        raw, priority = messages.returned(envelope, counted=counted)
    except messages.UNREADABLE as exc:
        logger.error(
            "put aside in %s: a message of queue %s that cannot be decoded (%s)", keys.dead(queue), queue, exc
        )
        return Settlement(tag, group, BACK, keys.dead(queue), 0, envelope)
    return Settlement(tag, group, FRONT, keys.list_for(queue, priority), 0, raw)


def _split(entry: bytes) -> tuple[bytes, str, str]:
    """Take an entry apart. The envelope may be anything that was in a list, so the end is looked at alone."""
    end = entry.rstrip()[:-1]
    key_at = _last_string(end)
    exchange_at = _last_string(end[:key_at].rstrip()[:-1])
    exchange = jsoncodec.decode(end[exchange_at:key_at].strip().rstrip(b","))
    envelope = end[:exchange_at].rstrip()[1:].rstrip(b", ")
    return envelope, str(exchange), str(jsoncodec.decode(end[key_at:].strip()))


def _last_string(text: bytes) -> int:
    """Where the JSON string begins with which the text ends."""
    at = text.rstrip().rfind(b'"', 0, -1)
    while at > 0 and text[at - 1 : at] == b"\\":
        at = text.rfind(b'"', 0, at)
    return max(0, at)


def _target(wire: Link, keys: Keys, exchange: str, routing_key: str) -> str:
    """Queue a stock consumer's message belongs to, from the binding table; the key itself when none is
    bound.
    """
    bound = [
        member.decode().split(keys.separator) for member in wire.call(b"SMEMBERS", keys.binding(exchange))
    ]
    return min(
        (parts[2] for parts in bound if len(parts) == 3 and parts[0] == routing_key), default=routing_key
    )
