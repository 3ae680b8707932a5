"""The asynchronous connection: claims messages, hears of new ones, sends acknowledgements, listens to
fanout channels.

Waiting holds no message. When a claim finds the queues empty, the connection asks the server to tell when
one of the lists changes (`CLIENT TRACKING`, armed by reading the keys just before the claim, so nothing can
slip in between); a push from any client, stock kombu included, then brings the word and the next claim
takes the message.

One tick sends everything in one write: acknowledgements, then the claims. Replies are handled when they
arrive.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from qbrokers.redis import settling
from qbrokers.redis.claims import Claiming, Taker
from qbrokers.redis.keeper import Claim, Keeper
from qbrokers.redis.listening import Listeners, refuses_subscription
from qbrokers.redis.refusals import is_refused
from qbrokers.redis.scripts import ALL
from qbrokers.redis.session import Session
from qbrokers.redis.settling import ACK, Confirmation, Settlement
from qbrokers.redis.wire import CHANNEL_ERRORS, CONNECTION_ERRORS, Push, Wire, error_of, pack, wait_readable

logger = logging.getLogger(__name__)

DELAYED_WAIT_SECONDS = 0.03
"""News of delayed messages alone are gathered for so long."""

REFUSED_WAIT_SECONDS = 2.0
MOVING_WAIT_SECONDS = (0.05, 1.0)
"""How long a claim waits that was turned down because its slot moves: the first time, and at most."""

MOVED_LOOK_SECONDS = 2.0
"""How often a waiting claim asks a server of a cluster that does not announce that it gave its queues away."""

Handler = Callable[[Any], None]


class Intake:
    """Claims and listens for the channels of one session on one server.

    Args:
        session: Session of the channels.
        keeper: Keeper of the process.
        wire: Connection of its own, opened when there is something to do.
        serves: Whether the books of a group are on its server; all of them when not given.
    """

    def __init__(
        self,
        session: Session,
        keeper: Keeper,
        wire: Wire,
        serves: Callable[[str], bool] | None = None,
    ) -> None:
        self._session = session
        self._keeper = keeper
        self.wire = wire
        wire._on_connect = self._prepare
        self._claimings: dict[tuple[Taker, str], Claiming] = {}
        self.listeners = Listeners(self, session.options.socket_timeout)
        self._pending: deque[Handler] = deque()
        self._heard_at = 0.0
        self._tracking = True
        self._serves = serves
        self.claimed_at = 0.0
        self.turned_down = False
        """Whether a claim was turned down because its queues are, or will be, elsewhere."""

    # -- membership

    def consume(self, taker: Taker, group: str, queues: list[tuple[str, bool]]) -> None:
        """Set the queues a channel takes messages from; none ends it. A claim under way still arrives."""
        self._claimings.pop((taker, group), None)
        if queues:
            self._claimings[taker, group] = Claiming(self._session, taker, group, queues)

    def groups(self, taker: Taker) -> list[str]:
        """Groups a channel takes messages from."""
        return [group for other, group in self._claimings if other is taker]

    def take_strays(self) -> list[Claiming]:
        """Claims whose books are on another server; they are taken out. Those under way stay for now."""
        assert self._serves is not None
        found = [
            claiming
            for claiming in self._claimings.values()
            if not claiming.busy and not self._serves(claiming.group)
        ]
        for claiming in found:
            del self._claimings[claiming.taker, claiming.group]
        self.turned_down = any(claiming.refusals for claiming in self._claimings.values())
        return found

    def adopt(self, claiming: Claiming) -> None:
        """Go on with a claim of another intake."""
        claiming.armed, claiming.expect_empty, claiming.refusals = False, True, 0
        self._claimings[claiming.taker, claiming.group] = claiming

    @property
    def active(self) -> bool:
        return bool(self._claimings) or self.listeners.active

    @property
    def waiting(self) -> bool:
        """Whether replies are outstanding."""
        return bool(self._pending)

    # -- connection

    def _prepare(self, wire: Wire) -> None:
        """Called with every new connection, before anything else is sent."""
        self._pending.clear()
        self._heard_at = monotonic()
        commands: list[tuple[Any, ...]] = [(b"SCRIPT", b"LOAD", script.source) for script in ALL]
        commands.append((b"CLIENT", b"TRACKING", b"ON", b"OPTIN", b"NOLOOP"))
        *_, tracking = wire.pipeline(commands, raise_errors=False)
        self._tracking = not isinstance(tracking, CHANNEL_ERRORS)
        if not self._tracking:
            logger.warning(
                "the server cannot announce new messages (%s); looking every %g s instead",
                tracking,
                self._session.options.poll_seconds,
            )
        self.listeners.resume()
        for claiming in self._claimings.values():
            claiming.armed = False
            claiming.expect_empty = True

    def lose(self) -> None:
        """The connection is gone: what was sent and not answered is kept for the keeper."""
        self.wire.close()
        pending, self._pending = self._pending, deque()
        for handler in pending:
            handler(None)
        for claiming in self._claimings.values():
            claiming.busy = claiming.armed = False
        self._session.lost = True

    # -- the tick

    def tick(self) -> None:
        """Send what is due.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost, or the server is silent for too long.
        """
        if not self.active and not self.wire.connected:
            return
        try:
            self._tick(monotonic())
        except CONNECTION_ERRORS:
            self.lose()
            raise

    def _tick(self, now: float) -> None:
        session = self._session
        if session.lost:
            # The program did not close the connection after the error, so it goes on with it.
            self.lose()
            session.revive()
        if not self.wire.connected:
            self.wire.connect()
        self._watch(now)
        out: list[bytes] = []
        handlers: list[Handler] = []
        if session.settlements:
            self._add_settlements(out, handlers)
        # Whoever comes first may use up the prefetch count, so those that claimed longest ago come first.
        for name, claiming in tuple(self._claimings.items()):
            for command in claiming.taker.refreshing(now):
                out.append(pack(command))
                handlers.append(_ignore)
            wanted = claiming.wants(now)
            if wanted > 0:
                self._add_claim(out, handlers, claiming, wanted)
                self._claimings[name] = self._claimings.pop(name)
                self.claimed_at = now
        if not out and not self._pending and now - self._heard_at > session.options.health_check_interval:
            out.append(b"*1\r\n$4\r\nPING\r\n")
            handlers.append(_ignore)
        if out:
            if not self._pending:
                self._heard_at = now
            self._pending.extend(handlers)
            self.wire.send(b"".join(out))

    def _watch(self, now: float) -> None:
        if self._pending and now - self._heard_at > self._session.options.socket_timeout:
            # The program may have kept the loop busy meanwhile: the reply counts as late only if it is not
            # there.
            if wait_readable([self.wire.fileno()], 0):
                self._heard_at = now
                return
            raise error_of(
                f"CLUSTERDOWN no reply from Redis for {now - self._heard_at:.0f} s; connection given up"
            )

    def _add_settlements(self, out: list[bytes], handlers: list[Handler]) -> None:
        session = self._session
        settlements = self._served(session.take_settlements())
        commands = settling.commands(settlements, session.keys)
        confirm = Confirmation(settlements, len(commands), session.put_back, self._keeper.settle)
        for _, command in commands:
            out.append(pack(command))
            handlers.append(confirm)
        if any(settlement.mode != ACK for settlement in settlements):
            # Our own changes are not announced to us.
            for claiming in self._claimings.values():
                claiming.armed = False
                claiming.expect_empty = True

    def _served(self, settlements: list[Settlement]) -> list[Settlement]:
        """Those whose books are on this server; the others stay noted."""
        if self._serves is None:
            return settlements
        try:
            here = {group: self._serves(group) for group in {each.group for each in settlements}}
        except CONNECTION_ERRORS:
            self._session.put_back(settlements)
            raise
        self._session.put_back([each for each in settlements if not here[each.group]])
        return [each for each in settlements if here[each.group]]

    def _add_claim(self, out: list[bytes], handlers: list[Handler], claiming: Claiming, wanted: int) -> None:
        arm = claiming.expect_empty and self._tracking
        if arm:
            handlers += (_ignore, _ignore)
        claim, packed = claiming.command(wanted, arm)
        out.append(packed)
        names = claiming.names
        claiming.armed = False
        claiming.busy = True
        claiming.taker.under_way += wanted

        def handle(reply: Any) -> None:
            claiming.busy = False
            claiming.taker.under_way -= wanted
            if reply is None:
                self._keeper.lost_claim(claim)
            else:
                self._claimed(claiming, claim, names, arm, reply)

        handlers.append(handle)

    def _claimed(self, claiming: Claiming, claim: Claim, names: list[str], armed: bool, reply: Any) -> None:
        if isinstance(reply, Exception):
            text = str(reply)
            if text.startswith("NOSCRIPT"):
                self.wire.send(b"".join(pack((b"SCRIPT", b"LOAD", script.source)) for script in ALL))
                self._pending.extend(_ignore for _ in ALL)
                return
            if text.startswith("FENCED"):
                self._session.revive()
                return
            if self._serves is not None and is_refused(reply):
                self._turn_down(claiming, reply)
                return
            if isinstance(reply, CONNECTION_ERRORS):
                raise reply
            # No memory left, no permission, a key of another type: somebody has to act, and nothing was
            # taken.
            logger.error("the server refused to hand out messages: %s; trying again", reply)
            claiming.armed = True
            claiming.look_at = monotonic() + REFUSED_WAIT_SECONDS
            return
        claiming.refusals = 0
        now = monotonic()
        server_time, next_due_ms = reply[0] / 1000, reply[1]
        taken = (len(reply) - 2) // 2
        claiming.armed = armed and not taken
        claiming.expect_empty = taken < claim.size
        pause = self._session.options.health_check_interval
        if self._serves is not None:
            pause = min(pause, MOVED_LOOK_SECONDS)
        if not self._tracking and not taken:
            claiming.armed = True
            pause = self._session.options.poll_seconds
        claiming.look_at = now + (min(pause, (next_due_ms + 1) / 1000) if next_due_ms >= 0 else pause)
        taker, owner, first = claiming.taker, claim.owner, claim.first
        for i in range(taken):
            queue = names[reply[2 + 2 * i] - 1]
            taker.claimed(queue, reply[3 + 2 * i], f"{owner}:{first + i}", server_time)

    def _turn_down(self, claiming: Claiming, reply: Exception) -> None:
        """Nothing was taken, and the connection is sound: the claim is made again, here or elsewhere."""
        first, longest = MOVING_WAIT_SECONDS
        claiming.armed = True
        claiming.look_at = monotonic() + min(longest, first * 2**claiming.refusals)
        claiming.refusals = min(10, claiming.refusals + 1)
        self.turned_down = True
        logger.debug("no messages from the queues of %s just now: %s", claiming.group, reply)

    # -- arriving

    def read(self) -> None:
        """Handle what has arrived; called when the descriptor is readable.

        Raises:
            redis.exceptions.ConnectionError: The connection is lost.
        """
        try:
            items = self.wire.read_ready()
            self._heard_at = monotonic()
            for item in items:
                if isinstance(item, Push):
                    self._pushed(item)
                elif refuses_subscription(item):
                    self.listeners.refused(item)
                else:
                    self._pending.popleft()(item)
        except CONNECTION_ERRORS:
            self.lose()
            raise

    def _pushed(self, push: Any) -> None:
        if push[0] == b"invalidate":
            self._changed(push[1])
        else:
            self.listeners.pushed(push)

    def _changed(self, changed: Iterable[bytes] | None) -> None:
        soon = monotonic() + DELAYED_WAIT_SECONDS
        for claiming in self._claimings.values():
            if changed is None or not claiming.lists.isdisjoint(changed):
                claiming.armed = False
                claiming.expect_empty = True
            elif not claiming.delayed.isdisjoint(changed):
                claiming.look_at = min(claiming.look_at, soon)
                claiming.expect_empty = True

    def wait_seconds(self) -> float:
        """How long the connection can be left alone, if nothing arrives."""
        now = monotonic()
        limit = self._session.options.health_check_interval
        for claiming in self._claimings.values():
            if not claiming.busy and claiming.taker.capacity() > 0:
                limit = min(limit, claiming.look_at - now if claiming.armed else 0.0)
        return max(0.0, limit)

    def finish(self, timeout_seconds: float, done: Callable[[], bool]) -> bool:
        """Read until a condition holds; returns whether it does."""
        deadline = monotonic() + timeout_seconds
        while not done():
            left = deadline - monotonic()
            if left <= 0 or not self.wire.connected:
                return False
            if wait_readable([self.wire.fileno()], left):
                self.read()
        return True


def _ignore(reply: Any) -> None:
    return None
