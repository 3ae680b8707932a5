"""An established connection to a SQLite broker: consumers, their messages, and what became of them."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qbrokers.batching import DEAD_LETTER_SUFFIX
from qbrokers.errors import BrokerUnavailable, LeaseLost, QBrokersError

from . import forks
from .keeper import Keeper
from .loop import LoopLink
from .messages import Claim, Settlement, Wish
from .options import Options
from .peers import Peer
from .sharing import Delivery, Subscription, shares
from .store import Store

if TYPE_CHECKING:
    from .channel import Channel

logger = logging.getLogger(__name__)

_TIDY_SECONDS = 5.0
_POLL_WITHOUT_PIPES_SECONDS = 0.05


class Session:
    """A connection; channels and threads share it.

    Messages are claimed in batches and given out one by one; acknowledgements are collected and written
    together with the next claim, at the latest before the connection goes to sleep.
    """

    def __init__(self, client: Any, options: Options) -> None:
        """Open the file.

        Raises:
            BrokerUnavailable, BrokerUnusable: See `qbrokers.errors`.
        """
        self.client = client
        self.options = options
        self.closed = False
        self.lock = threading.RLock()
        self.channels: list[Channel] = []
        self.store = Store(options)
        self.store.database.open()
        self.delivery_tags = itertools.count(1)
        self._reset()
        forks.guard(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._subscriptions: dict[str, Subscription] = {}
        self._inbox: deque[Delivery] = deque()
        self._done: list[int] = []
        self._returned: list[int] = []
        self._untouched: list[int] = []
        self._peer: Peer | None = None
        self._keeper: Keeper | None = None
        self._loop: LoopLink | None = None
        self._maybe_ready = True
        self._next_due: float | None = None
        self._lost = False
        self._beat_at = self._tidy_at = self._rescue_at = self._poll_at = 0.0
        self._turn = 0

    @property
    def usable(self) -> bool:
        """Whether the connection can go on; otherwise a new one is needed."""
        return not (self.closed or self._lost or self.store.database.gone)

    @property
    def has_consumers(self) -> bool:
        """Whether somebody waits for messages on this connection."""
        return bool(self._subscriptions) and not self.closed

    # -- consumers

    def subscribe(self, subscription_of: Callable[[int], Subscription], tag: str, queue: str) -> None:
        """Start a consumer; `subscription_of` makes it when the id of the queue is known."""
        peer = self._joined()
        with self.lock:
            self._subscriptions[tag] = subscription_of(self.store.listen(peer.id, tag, queue))
            self._maybe_ready = True
        # Lets a hub call us although nothing was published.
        peer.waiter.wake()

    def unsubscribe(self, tag: str) -> None:
        """Stop a consumer; messages that it has not seen yet go back to the queue."""
        with self.lock:
            subscription = self._subscriptions.pop(tag, None)
            if subscription is None or self._peer is None:
                return
            for delivery in [d for d in self._inbox if d.subscription is subscription]:
                self._inbox.remove(delivery)
                subscription.channel.forget(delivery.tag)
                self._untouched.append(delivery.claim.id)
            self.flush()
            self.store.unlisten(self._peer.id, tag, subscription.queue_id)

    def fetch_one(self, queue: str, no_ack: bool) -> Claim | None:
        """Claim the next message of a queue, if there is one."""
        peer = self._joined()
        record = self.store.topology().queues.get(queue)
        if record is None or not self.store.peek([record.id])[0]:
            return None
        claims = self._settle_and_claim(peer, [Wish(record.id, 1, no_ack)])[0]
        return claims[0] if claims else None

    # -- settling

    def settle(
        self, done: Sequence[int] = (), returned: Sequence[int] = (), untouched: Sequence[int] = ()
    ) -> None:
        """Remember what became of messages (see `Settlement`); written by `flush` or with the next claim.

        Raises:
            BrokerUnavailable: The connection is closed, the messages went back to their queues.
        """
        if self.closed:
            raise BrokerUnavailable(self.options.path, "the connection is closed, its messages were returned")
        with self.lock:
            self._done += done
            self._returned += returned
            self._untouched += untouched
            self._maybe_ready = self._maybe_ready or bool(returned or untouched)

    def move(self, message_id: int, suffix: str, headers: Mapping[str, Any]) -> None:
        """Move a held message to the end of a queue, now; see `Store.move`."""
        self.store.move(self._joined().id, message_id, suffix, headers)
        with self.lock:
            self._maybe_ready = True

    def flush(self) -> None:
        """Write all acknowledgements and rejections in one transaction."""
        self._check_process()
        with self.lock:
            if self._peer is not None and (self._done or self._returned or self._untouched):
                self._settle_and_claim(self._peer, [])

    def _settle_and_claim(self, peer: Peer, wishes: list[Wish]) -> list[list[Claim]]:
        with self.lock:
            settlement = Settlement(self._done, self._returned, self._untouched)
            claims = self.store.settle_and_claim(peer.id, settlement, wishes)
            # Not before: what could not be written is tried again.
            self._done, self._returned, self._untouched = [], [], []
            return claims

    # -- receiving

    def drain_events(self, timeout: float | None = None) -> None:
        """Give one message to its consumer; wait for one at most `timeout` seconds.

        Raises:
            TimeoutError: There was none.
            BrokerUnavailable, BrokerUnusable: See `qbrokers.errors`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._deliver_one():
            self._hear()
            if self.fetch():
                continue
            seconds = self.options.poll_seconds
            if deadline is not None:
                seconds = min(seconds, deadline - time.monotonic())
                if seconds <= 0:
                    raise socket.timeout  # noqa: UP041 - the name under which kombu's users know it
            self._wait(seconds)
            self._maybe_ready = True

    def _wait(self, seconds: float) -> None:
        if self._peer is None:
            time.sleep(seconds)
        else:
            self._peer.waiter.wait(seconds)

    def _hear(self) -> None:
        if self._peer is not None and self._peer.waiter.wait(0):
            self._peer.waiter.clear()
            self._maybe_ready = True

    def _deliver_one(self) -> bool:
        with self.lock:
            if not self._inbox:
                return False
            subscription, tag, claim = self._inbox.popleft()
            message = subscription.channel.open_message(subscription.queue, claim, tag, subscription.tag)
            if message is None:
                return True
            if subscription.no_ack:
                # Only now: what nobody has seen when the consumer leaves goes back to the queue.
                self._done.append(claim.id)
        subscription.callback(message)
        return True

    def put_aside(self, queue: str, claim: Claim, why: Exception) -> None:
        """Put a message aside that cannot be read; the next ones must not wait behind it."""
        logger.error(
            "Put aside in %s%s: message %d of the queue %s cannot be read (%s); it is in the table `message` of %s",
            *(queue, DEAD_LETTER_SUFFIX, claim.id, queue, why, self.options.path),
        )
        self.store.put_aside(self._joined().id, claim, queue)

    def fetch(self) -> bool:
        """Write what is settled, claim what fits; return whether there is something to deliver."""
        self._check_process()
        if not self.usable:
            self._complain()
        with self.lock:
            peer = self._peer
            if peer is None:
                return False
            wishes = self._wishes() if self._maybe_ready else {}
            if wishes or self._done or self._returned or self._untouched:
                claims = self._settle_and_claim(peer, list(wishes.values()))
                for subscription, claimed in zip(wishes, claims, strict=True):
                    self._accept(subscription, claimed)
            return bool(self._inbox)

    def _complain(self) -> None:
        if self._lost:
            raise LeaseLost(self.options.path)
        if self.closed:
            raise BrokerUnavailable(self.options.path, "the connection is closed")
        self.store.database.open()

    def _accept(self, subscription: Subscription, claims: list[Claim]) -> None:
        for claim in claims:
            tag = next(self.delivery_tags)
            if not subscription.no_ack:
                subscription.channel.remember(tag, claim.id)
            self._inbox.append(Delivery(subscription, tag, claim))

    def _wishes(self) -> dict[Subscription, Wish]:
        """What to claim now: for each channel what its prefetch limit leaves, shared by its queues."""
        wanting = [s for s in self._subscriptions.values() if s.no_ack or s.channel.room() > 0]
        if not wanting:
            return {}
        ready, due = self.store.peek([s.queue_id for s in wanting])
        self._expect(due)
        if not ready:
            # A channel that is full was not asked for; it may have something as soon as it has room.
            self._maybe_ready = len(wanting) < len(self._subscriptions)
            return {}
        wishes = {}
        for channel in self.channels:
            mine = [s for s in wanting if s.channel is channel and s.queue_id in ready]
            wishes.update(shares(mine, channel.room(), self.options, self._turn))
        self._turn += 1
        return wishes

    def _expect(self, due: float | None) -> None:
        if due is not None and (self._next_due is None or due < self._next_due) and self._keeper is not None:
            self._next_due = due
            self._keeper.kick()

    # -- in an event loop

    def register(self, hub: Any) -> None:
        """Let a kombu hub call this connection when messages arrive."""
        waiter = self._joined().waiter
        if self._loop is None or self._loop.hub is not hub:
            self.unregister()
            self._loop = LoopLink(hub, waiter, self)

    def unregister(self) -> None:
        """Undo `register`."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def deliver_all(self) -> None:
        """Give out what has been claimed and what can be claimed now."""
        self._hear()
        if not self._inbox:
            self.fetch()
        for _ in range(len(self._inbox)):
            if not self._deliver_one():
                break

    # -- the owner of the messages

    def _joined(self) -> Peer:
        """Become the owner of messages, when that is needed for the first time."""
        self._check_process()
        with self.lock:
            if not self.usable:
                self._complain()
            if self._peer is None:
                try:
                    peer = Peer(self.store.directory)
                except OSError as error:
                    raise BrokerUnavailable(self.options.path, f"cannot write beside it: {error}") from error
                try:
                    self.store.join(peer)
                except BaseException:
                    peer.close()
                    raise
                self._peer = peer
                self._beat_at = time.monotonic() + self.options.beat_seconds
                self._keeper = Keeper(self._tick, _abandoner(self.store, peer))
            return self._peer

    def _tick(self) -> float:
        """The keeper's duties; return the seconds until it should call again."""
        peer = self._peer
        if peer is None:
            return self.options.watch_seconds
        try:
            self._keep(peer, time.monotonic())
        except QBrokersError as error:
            # The thread that uses the connection meets the same error and reports it.
            logger.debug("Background work failed: %s", error)
            peer.waiter.wake()
        now = time.monotonic()
        until_due = self.options.watch_seconds if self._next_due is None else self._next_due - time.time()
        until_work = min(self._beat_at, self._rescue_at, self._poll_at) - now
        return max(min(until_due, until_work, self.options.watch_seconds), 0.001)

    def _keep(self, peer: Peer, now: float) -> None:
        if self._next_due is not None and time.time() >= self._next_due:
            self._next_due = None
            peer.waiter.wake()
        if now >= self._poll_at:
            seconds = self.options.poll_seconds if peer.waiter.remote else _POLL_WITHOUT_PIPES_SECONDS
            self._poll_at = now + seconds
            peer.waiter.wake()
        if now >= self._beat_at:
            self._beat_at = now + self.options.beat_seconds
            self._lost = not self.store.beat(peer.id)
        if now >= self._rescue_at:
            self._rescue_at = now + self.options.watch_seconds
            self.store.rescue()
            # A program that acknowledges and then works on for long without asking for more.
            self.flush()
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY_SECONDS
            self.store.tidy()

    # -- the end

    def close(self) -> None:
        """Write what is settled, return all other messages, close the file. Never raises."""
        self._check_process()
        with self.lock:
            if self.closed:
                return
            self.closed = True
        self.unregister()
        if self._keeper is not None:
            self._keeper.stop()
        for channel in list(self.channels):
            channel.closed = True
        self.channels.clear()
        if self._peer is not None:
            self._leave(self._peer)
        self.store.close()

    def _leave(self, peer: Peer) -> None:
        self._untouched += [delivery.claim.id for delivery in self._inbox]
        left = False
        try:
            self.store.leave(peer.id, Settlement(self._done, self._returned, self._untouched))
            left = True
        except QBrokersError as error:
            logger.warning("Could not return messages on close, they return by themselves soon: %s", error)
        peer.close(left)
        self._peer = None

    # -- forks

    def _check_process(self) -> None:
        """Notice a fork that Python's hooks did not see."""
        if self._pid != os.getpid():
            self.after_fork_in_child()

    def before_fork(self) -> None:
        """Nothing: the database closes itself, and taking our lock after its lock could be a deadlock."""

    def after_fork_in_parent(self) -> None:
        """Nothing was let go."""

    def after_fork_in_child(self) -> None:
        """Consumers and their messages are the parent's; publishing goes on with a connection of our own."""
        self.lock = threading.RLock()
        if self._peer is not None:
            self._peer.forget()
        for channel in self.channels:
            channel.forget_all()
        self.store.after_fork_in_child()
        self._reset()


def _abandoner(store: Store, peer: Peer) -> Callable[[], None]:
    def abandoned() -> None:
        left = False
        try:
            store.leave(peer.id, Settlement())
            left = True
        except QBrokersError as error:
            logger.warning("Could not return the messages of a connection that was never closed: %s", error)
        peer.close(left)
        store.close()

    return abandoned
