"""The servers of one test run: found, started or installed; and given back at its end."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from servers import debian
from servers.contract import Server, Unavailable
from servers.faketime import Faketime
from servers.mariadb import MariaDB
from servers.memcached import Memcached
from servers.postgresql import PostgreSQL
from servers.rabbitmq import RabbitMQ
from servers.redis import Redis

KINDS: tuple[type[Server], ...] = (Redis, RabbitMQ, PostgreSQL, MariaDB, Memcached, Faketime)
NAMES = tuple(kind.name for kind in KINDS)
PREFIX_VARIABLE = "Q_TEST_PREFIX"
REQUIRE_VARIABLE = "Q_TEST_REQUIRE"
"""Set: a test whose server is missing fails."""


@dataclass(frozen=True, slots=True)
class Found:
    """One server as the tests get it."""

    title: str
    variable: str
    url: str | None
    """None: missing."""
    how: str
    """Where it comes from, or why it is missing."""


class Servers:
    """Gets servers by name, remembers them, and gives back at `close` what it took and started."""

    def __init__(self, *, install: bool = False, own: bool = False) -> None:
        """
        Args:
            install: Whether a missing server may be installed with apt.
            own: Start servers of our own even where one listens on the standard port.
        """
        self._install = install
        self._own = own
        self._found: dict[str, Found] = {}
        self._claimed: list[Server] = []
        self._started: list[tuple[Server, Path]] = []
        self.label = f"q-test-{os.getpid()}-{uuid.uuid4().hex[:6]}"

    def get(self, name: str) -> Found:
        """The server called `name` (see `NAMES`); never raises for a missing one."""
        if name not in self._found:
            self._found[name] = self._obtain(next(kind for kind in KINDS if kind.name == name))
        return self._found[name]

    def get_all(self, names: Sequence[str]) -> list[Found]:
        """Several at once: they start side by side."""
        with ThreadPoolExecutor(len(KINDS)) as threads:
            return list(threads.map(self.get, names))

    def close(self) -> None:
        """Delete our corners, stop our servers; go on when one of them resists."""
        for server in self._claimed:
            try:
                server.release()
            except (Unavailable, OSError) as error:
                print(f"{server.title}: could not delete {self.label}: {error}", file=sys.stderr)
        for server, directory in self._started:
            server.stop()
            shutil.rmtree(directory, ignore_errors=True)
        self._claimed.clear()
        self._started.clear()
        self._found.clear()

    def _obtain(self, kind: type[Server]) -> Found:
        given = os.environ.get(kind.variable)
        if given:
            return Found(kind.title, kind.variable, given, "given by the environment")
        reasons = []
        for way in (self._claim, self._start, self._install_and_start):
            try:
                url, how = way(kind())
            except (Unavailable, OSError) as error:
                if str(error) not in reasons:
                    reasons.append(str(error))
            else:
                return Found(kind.title, kind.variable, url, how)
        return Found(kind.title, kind.variable, None, "; ".join(filter(None, reasons)))

    def _claim(self, server: Server) -> tuple[str, str]:
        if self._own or not server.answers(server.port):
            raise Unavailable("")
        url = server.claim(server.port, self.label)
        self._claimed.append(server)
        return url, f"was there on port {server.port}"

    def _start(self, server: Server) -> tuple[str, str]:
        directory = Path(tempfile.mkdtemp(prefix=f"{self.label}-{server.name}-"))
        try:
            url = server.start(directory)
        except BaseException:
            server.stop()
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self._started.append((server, directory))
        return url, "started for this run"

    def _install_and_start(self, server: Server) -> tuple[str, str]:
        if not self._install:
            raise Unavailable("")
        debian.install(server.packages)
        return self._start(server)[0], "installed with apt and started for this run"
