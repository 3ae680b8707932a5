"""What the Redis tests share: a broker with keys of its own, a server of the test's own, waiting."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from kombu import Connection

from qcore import App

OURS = "qbrokers.redis:Transport"


class Broker:
    """One database of a server, with keys of its own.

    Attributes:
        url: Its URL.
        prefix: `global_keyprefix` of every connection.
        client: Plain client, to look at the keys.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"t{uuid4().hex[:8]}:"
        self.client: Any = redis.Redis.from_url(url)

    def options(self, **options: Any) -> dict[str, Any]:
        return {"global_keyprefix": self.prefix, "lease_seconds": 3, **options}

    def connect(self, url: str | None = None, **options: Any) -> Any:
        return Connection(url or self.url, transport=OURS, transport_options=self.options(**options))

    def stock(self, **options: Any) -> Any:
        return Connection(self.url, transport_options={"global_keyprefix": self.prefix, **options})

    def names(self) -> set[str]:
        return {key.decode()[len(self.prefix) :] for key in self.client.scan_iter(self.prefix + "*")}

    def held(self) -> int:
        return int(self.client.hlen(self.prefix + "unacked"))

    def clean(self) -> None:
        for key in self.client.scan_iter(self.prefix + "*"):
            self.client.delete(key)
        self.client.close()


class Server:
    """A redis-server process of the test's own.

    Args:
        folder: Where it keeps its data.
        arguments: Further configuration.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it without waiting until it answers."""
        command = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", *self.arguments]
        self._launch(command)

    def launch_with(self, sentinel_configuration: Path) -> None:
        """Start a Sentinel instead."""
        self._launch([str(sentinel_configuration), "--sentinel"])

    def _launch(self, arguments: list[str]) -> None:
        command = ["redis-server", *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self) -> None:
        until(self._answers, 10)

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False  # not there yet, or loading

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def app_connection(url: str, **options: Any) -> Any:
    """A connection as an app opens it: the URL may name several servers."""
    app = App("connecting", broker=url, set_as_current=False)
    return app.connection_for_read(transport_options=options)


def free_port() -> int:
    """A free port of which the one 10,000 above is free, too: a cluster's servers talk there."""
    rng = random.Random()
    while True:
        port = rng.randrange(20_000, 50_000)
        try:
            for number in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for a condition; fails when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not true within {seconds:g} s: {condition}")
        time.sleep(0.01)


def drain(connection: Any, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
    """Let a connection deliver for so long, or until there is enough."""
    deadline = time.monotonic() + seconds
    while not enough() and (left := deadline - time.monotonic()) > 0:
        try:
            connection.drain_events(timeout=min(left, 0.5))
        except TimeoutError:
            continue
