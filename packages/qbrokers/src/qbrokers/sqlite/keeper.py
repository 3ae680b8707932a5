"""The background thread of a consuming connection: heartbeat, watch over others, clock for delayed messages.

It is a thread so that a lease is renewed however long a program works on one message without asking for the
next. It holds the connection weakly: a connection that nobody refers to any more gives its messages back.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Keeper:
    """Calls `tick` again and again until it is stopped or the object of `tick` is gone."""

    def __init__(self, tick: Callable[[], float], abandoned: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            tick: A bound method that returns after how many seconds it wants to be called again; it is held
                weakly.
            abandoned: Called once when the object of `tick` is gone; must not refer to that object.
        """
        self._tick = weakref.WeakMethod(tick)
        self._abandoned = abandoned
        self._kicked = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="qbrokers-keeper", daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """Let the next tick happen now."""
        self._kicked.set()

    def stop(self) -> None:
        """End the thread, and wait for it unless this is the thread itself."""
        self._stopped = True
        self._kicked.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        seconds = 0.0
        while True:
            self._kicked.wait(seconds)
            self._kicked.clear()
            if self._stopped:
                return
            tick = self._tick()
            if tick is None:
                self._abandoned()
                return
            seconds = tick()
            # Or the object lived on for as long as this thread waits.
            del tick
