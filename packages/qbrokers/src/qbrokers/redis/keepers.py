"""The keepers of this process: messages outlive the connection they came by, so what is held is a matter of the
process.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from qbrokers.redis.keeper import Keeper
from qbrokers.redis.keys import Keys
from qbrokers.redis.options import Options
from qbrokers.redis.servers import Server


class Keepers:
    """The keepers of this process, one per server and layout; a forked child begins with none."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._keepers: dict[tuple[Any, ...], Keeper] = {}
        self._lock = threading.Lock()

    def get(self, kind: type[Keeper], server: Server, keys: Keys, options: Options) -> Keeper:
        if self._pid != os.getpid():
            self.__init__()  # type: ignore[misc]
        identity = (
            kind,
            server.identity,
            options.global_keyprefix,
            options.unacked_key,
            options.lease_seconds,
        )
        with self._lock:
            keeper = self._keepers.get(identity)
            if keeper is None:
                keeper = self._keepers[identity] = kind(server, keys, options)
            return keeper


KEEPERS = Keepers()
