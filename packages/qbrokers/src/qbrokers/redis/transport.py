"""The transport: kombu's way in, for programs that wait (`drain_events`) and for event loops
(`register_with_event_loop`).
"""

from __future__ import annotations

import os
import socket
from collections import deque
from threading import get_ident
from time import monotonic
from typing import Any

import redis
from kombu.exceptions import InconsistencyError

from qbrokers.redis.bases import BaseTransport
from qbrokers.redis.channel import Channel as RedisChannel
from qbrokers.redis.claims import claim_one
from qbrokers.redis.intake import Intake
from qbrokers.redis.keeper import Keeper
from qbrokers.redis.keepers import KEEPERS
from qbrokers.redis.keys import Keys
from qbrokers.redis.options import Options
from qbrokers.redis.publishing import Limits
from qbrokers.redis.servers import DEFAULT_PORT, Server, server_of
from qbrokers.redis.session import Session
from qbrokers.redis.wire import CHANNEL_ERRORS, CONNECTION_ERRORS, wait_readable

WATCH_SECONDS = 1.0

Arrival = tuple[RedisChannel, str, Any, str | None]
"""A message on its way to a consumer: channel, queue, message, tag when it is held."""


class Transport(BaseTransport):  # type: ignore[misc]
    """Redis with leases, for `redis://`, `rediss://` and `redis+socket://`."""

    Channel = RedisChannel
    keeper_class: type[Keeper] = Keeper
    session_class: type[Session] = Session
    keys_class: type[Keys] = Keys
    default_port = DEFAULT_PORT
    driver_type = "redis"
    driver_name = "redis"
    polling_interval = None
    connection_errors = (*BaseTransport.connection_errors, InconsistencyError, *CONNECTION_ERRORS)
    channel_errors = (*BaseTransport.channel_errors, *CHANNEL_ERRORS)
    implements = BaseTransport.implements.extend(
        asynchronous=True, batch_publish=True, exchange_type=frozenset(["direct", "topic", "fanout"])
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.options = Options.of(client.transport_options)
        self.inbox: deque[Arrival] = deque()
        self.keeper: Keeper
        self.limits: dict[str, Limits] = {}
        self._session: Session | None = None
        self._intake: Intake | None = None
        self._waker = Waker()
        self._hub: Any = None
        self._timers: list[Any] = []
        self._watched: dict[Intake, int] = {}
        self._loop_thread: int | None = None
        self._due_timer: tuple[float, Any] | None = None

    def driver_version(self) -> str:
        return str(redis.__version__)

    # -- connection

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = self._new_session()
        return self._session

    def server(self) -> Server:
        return server_of(self.client, self.options, self.default_port)

    def _new_session(self) -> Session:
        server, options = self.server(), self.options
        keys = self.new_keys(self._fanout_prefix(server))
        self.keeper = KEEPERS.get(self.keeper_class, server, keys, options)
        return self.session_class(server, keys, options)

    def _fanout_prefix(self, server: Server) -> str:
        given = self.options.fanout_prefix
        text = given if isinstance(given, str) else "/{db}." if given else ""
        return text.format(db=server.database)

    def new_keys(self, fanout_prefix: str) -> Keys:
        options = self.options
        return self.keys_class(
            options.global_keyprefix,
            options.sep,
            options.priority_steps,
            unacked=options.unacked_key,
            unacked_index=options.unacked_index_key,
            fanout_prefix=fanout_prefix,
            fanout_patterns=options.fanout_patterns,
        )

    def establish_connection(self) -> Transport:
        """Connect, so that a wrong address shows here.

        Raises:
            redis.exceptions.ConnectionError: The server cannot be reached, or is too old.
        """
        session = self.session
        if session.lost and not self.channels:
            session.revive()
        self.verify(session)
        return super().establish_connection()  # type: ignore[no-any-return]

    def verify(self, session: Session) -> None:
        wire = session.any_wire()
        wire.connect()
        if not self.keeper.version_checked:
            wire.check_version()
            self.keeper.version_checked = True

    def close_connection(self, connection: Any) -> None:
        """Close the channels, and with them everything that is held."""
        super().close_connection(connection)
        self._leave_hub()
        session, self._session = self._session, None
        for intake in self.intakes():
            intake.wire.close()
        self.drop_intakes()
        if session is not None:
            self.keeper.closed(session)
            session.close()
        self._waker.close()
        self.inbox.clear()

    # -- what channels ask for

    def intakes(self) -> list[Intake]:
        return [self._intake] if self._intake is not None else []

    def drop_intakes(self) -> None:
        self._intake = None

    def intake(self, channel: RedisChannel, group: str = "") -> Intake:
        """The asynchronous connection for a group of queues, and for fanout channels."""
        if self._intake is None:
            session = self.session
            self._intake = Intake(session, self.keeper, session.new_wire())
        return self._intake

    def consume(self, channel: RedisChannel, queues: list[tuple[str, bool]]) -> None:
        """Set the queues a channel takes messages from, each with "without acknowledgement"."""
        self.intake(channel).consume(channel, "", queues)

    def unlisten(self, channel: RedisChannel, queue: str) -> None:
        for intake in self.intakes():
            intake.listeners.remove(channel, queue)

    def rearrange(self) -> None:
        """Follow queues that went to another server; called in every turn of a loop."""

    def take_one(self, channel: RedisChannel, queue: str, no_ack: bool) -> tuple[bytes, str, float] | None:
        return claim_one(self.session, self.keeper, channel, queue, no_ack)

    def take_inbox(self, channel: RedisChannel) -> list[Arrival]:
        """Messages that have arrived for a channel and were not delivered; they are taken out."""
        mine = [arrival for arrival in self.inbox if arrival[0] is channel]
        rest = [arrival for arrival in self.inbox if arrival[0] is not channel]
        self.inbox.clear()
        self.inbox.extend(rest)
        return mine

    def finish_claims(self, channel: RedisChannel, timeout_seconds: float) -> None:
        """Wait for claims under way for a channel."""
        for intake in self.intakes():
            if not intake.finish(timeout_seconds, lambda: channel.under_way == 0):
                intake.lose()

    def settled(self) -> None:
        """Something was acknowledged; a loop that waits in another thread is told."""
        if self._loop_thread is not None and self._loop_thread != get_ident():
            self._waker.wake()

    def wake(self) -> None:
        self.settled()

    # -- waiting programs

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message, waiting for it if necessary.

        Raises:
            socket.timeout: None came in time.
            redis.exceptions.ConnectionError: The connection is lost.
        """
        if self._deliver_next():
            return
        deadline = None if timeout is None else monotonic() + timeout
        self._loop_thread = get_ident()
        try:
            while True:
                self._waker.reset()
                self.rearrange()
                for intake in self.intakes():
                    intake.tick()
                if self._deliver_next():
                    return
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._wait(left)
                if self._deliver_next():
                    return
        finally:
            self._loop_thread = None

    def _wait(self, left: float | None) -> None:
        intakes = {i.wire.fileno(): i for i in self.intakes() if i.wire.connected}
        pause = min((i.wait_seconds() for i in intakes.values()), default=WATCH_SECONDS)
        if left is not None:
            pause = min(pause, left)
        for descriptor in wait_readable([self._waker.fileno(), *intakes], pause):
            intake = intakes.get(descriptor)
            if intake is not None:
                intake.read()

    def _deliver_next(self) -> bool:
        while self.inbox:
            channel, queue, message, tag = self.inbox.popleft()
            if channel.deliver(queue, message, tag):
                return True
        return False

    # -- event loops

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Work in a kombu hub: many messages are delivered per readiness, acknowledgements leave at the end
        of a tick.
        """
        self._leave_hub()
        self._hub = loop
        self._loop_thread = get_ident()
        loop.on_tick.add(self._on_tick)
        loop.add_reader(self._waker.fileno(), self._waker.reset)
        self._timers.append(loop.call_repeatedly(WATCH_SECONDS, _nothing))

    def on_readable(self, fileno: int) -> None:
        """Handle what has arrived on a descriptor."""
        for intake, descriptor in tuple(self._watched.items()):
            if descriptor == fileno:
                try:
                    intake.read()
                except self.connection_errors:
                    self._unwatch(intake)
                    raise
        self._deliver_all()

    def _on_tick(self) -> None:
        self._loop_thread = get_ident()
        self._deliver_all()
        self.rearrange()
        for intake in self.intakes():
            try:
                intake.tick()
            except self.connection_errors:
                self._unwatch(intake)
                raise
            self._watch(intake)
            self._call_when_due(intake)
        self._deliver_all()

    def _deliver_all(self) -> None:
        while self._deliver_next():
            pass

    def _watch(self, intake: Intake) -> None:
        if not intake.wire.connected:
            return
        descriptor = intake.wire.fileno()
        if self._watched.get(intake) != descriptor:
            self._unwatch(intake)
            self._watched[intake] = descriptor
        if descriptor not in self._hub.readers:
            self._hub.add_reader(descriptor, self.on_readable, descriptor)

    def _unwatch(self, intake: Intake) -> None:
        descriptor = self._watched.pop(intake, None)
        if descriptor is not None and self._hub is not None and descriptor in self._hub.readers:
            self._hub.remove(descriptor)

    def _call_when_due(self, intake: Intake) -> None:
        """The hub sleeps until something happens; delayed messages becoming due is something."""
        pause = intake.wait_seconds()
        if pause >= WATCH_SECONDS:
            return
        due = monotonic() + pause
        if self._due_timer is not None:
            if self._due_timer[0] <= due + 0.005 and self._due_timer[0] > monotonic():
                return
            self._due_timer[1].cancel()
        self._due_timer = (due, self._hub.call_later(pause, _nothing))

    def _leave_hub(self) -> None:
        hub, self._hub = self._hub, None
        if hub is None:
            return
        hub.on_tick.discard(self._on_tick)
        for intake, descriptor in self._watched.items():
            if intake.wire.connected and descriptor in hub.readers:
                hub.remove(descriptor)
        self._watched.clear()
        if self._waker.open and self._waker.fileno() in hub.readers:
            hub.remove(self._waker.fileno())
        for timer in (*self._timers, *([self._due_timer[1]] if self._due_timer else ())):
            timer.cancel()
        self._timers.clear()
        self._due_timer = None


class Waker:
    """A descriptor that becomes readable when another thread calls `wake`."""

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._pid = 0
        self._woken = False

    @property
    def open(self) -> bool:
        return self._pair is not None and self._pid == os.getpid()

    def fileno(self) -> int:
        if not self.open:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
            self._pid = os.getpid()
        assert self._pair is not None
        return self._pair[0].fileno()

    def wake(self) -> None:
        pair = self._pair
        if pair is not None and not self._woken:
            self._woken = True
            try:
                pair[1].send(b"\0")
            except OSError:
                pass  # full or just closed: the loop is awake

    def reset(self) -> None:
        """Called by the loop before it looks for work."""
        if self._woken and self._pair is not None:
            self._woken = False
            try:
                self._pair[0].recv(4096)
            except OSError:
                pass  # nothing there

    def close(self) -> None:
        pair, self._pair = self._pair, None
        if pair is not None:
            for end in pair:
                end.close()


def _nothing() -> None:
    """A timer that only makes the hub tick."""
