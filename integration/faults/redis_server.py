"""A redis-server process of the test's own, which keeps its data over a SIGKILL."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import redis
from servers.process import find_binary, free_port


class RedisServer:
    """Redis on a free loopback port.

    Args:
        directory: Where its data live.
        environment: Further environment variables of the process.
        durable: Every write is on disk before its reply; otherwise nothing is.
    """

    def __init__(
        self, directory: Path, environment: Mapping[str, str] | None = None, *, durable: bool = True
    ) -> None:
        self._appendonly = "yes" if durable else "no"
        self.directory = directory
        self.environment = {**os.environ, **(environment or {})}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and return once it has read its data and answers."""
        command = [find_binary("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += [
            "--dir",
            str(self.directory),
            "--save",
            "",
            "--appendonly",
            self._appendonly,
            "--appendfsync",
            "always",
            "--auto-aof-rewrite-percentage",
            "0",
        ]
        self._process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, f"redis-server ended with {self._process.returncode}"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port) as client:
                return bool(client.ping())
        except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            return False
