"""Redis whose master Sentinels know.

A master that is replaced while it lives goes on for some ten seconds, until the Sentinels tell it, and then drops what
it was given meanwhile. So the Sentinels are asked every second who the master is, and another one is gone to at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import WeakSet

from qbrokers.redis.keeper import Keeper
from qbrokers.redis.keys import Keys
from qbrokers.redis.options import Options
from qbrokers.redis.servers import Server, sentinel_of
from qbrokers.redis.session import Session
from qbrokers.redis.transport import Transport
from qbrokers.redis.wire import CHANNEL_ERRORS, CONNECTION_ERRORS, Wire

logger = logging.getLogger(__name__)

ASK_SECONDS = 1.0


class SentinelSession(Session):
    """A session that leaves a master that is one no more."""

    def __init__(self, server: Server, keys: Keys, options: Options) -> None:
        super().__init__(server, keys, options)
        self.wake: Callable[[], None] = _nobody
        self._left = False

    def wire(self, group: str) -> Wire:
        if self._left:
            self._left = False
            self._wire.close()
        return self._wire

    def leave(self) -> None:
        """Go on with a new connection; called by any thread. What is held stays held, under the old owner id."""
        self.lost = self._left = True
        self.wake()


class SentinelKeeper(Keeper):
    """A keeper that asks the Sentinels for the master, also for connections that only publish."""

    def __init__(self, server: Server, keys: Keys, options: Options) -> None:
        super().__init__(server, keys, options)
        self._watching: WeakSet[SentinelSession] = WeakSet()
        self._master: Any = None
        self._ask_at = 0.0

    def watch(self, session: SentinelSession) -> None:
        """A session has connected."""
        with self._lock:
            self._watching.add(session)
            self._start()

    def closed(self, session: Session) -> None:
        with self._lock:
            self._watching.discard(session)  # type: ignore[arg-type]
        super().closed(session)

    def _needed(self) -> bool:
        return super()._needed() or bool(self._watching)

    def _work(self) -> None:
        if monotonic() >= self._ask_at:
            self._ask_at = monotonic() + ASK_SECONDS
            self._look()
        super()._work()

    def _look(self) -> None:
        assert self._server.master is not None
        try:
            master = self._server.master()
        except (*CONNECTION_ERRORS, *CHANNEL_ERRORS) as exc:
            logger.debug("the Sentinels name no master: %s; going on with the one known", exc)
            return
        before, self._master = self._master, master
        if before not in (None, master):
            logger.warning("the master is %s:%s now, not %s:%s; going there", *master, *before)
            self.close_wires()
            for session in self._snapshot(self._watching):
                session.leave()


class SentinelTransport(Transport):
    """`sentinel://host:26379;sentinel://host2:26379/0`, option `master_name`."""

    default_port = 26379
    keeper_class = SentinelKeeper
    session_class = SentinelSession

    def server(self) -> Server:
        return sentinel_of(self.client, self.options, self.default_port)

    def verify(self, session: Session) -> None:
        super().verify(session)
        assert isinstance(session, SentinelSession)
        assert isinstance(self.keeper, SentinelKeeper)
        session.wake = self.wake
        self.keeper.watch(session)


def _nobody() -> None:
    """There is no loop to wake."""
