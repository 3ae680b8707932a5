"""Redis: a database number of our own on a server that was there, or a server of our own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from servers.contract import Server, Unavailable
from servers.process import OwnProcess, find_binary, free_port

TIMEOUT_SECONDS = 5.0
CLAIM_KEY = "q-test-claim"
"""Marks a database number as taken by a test run; the value is `host:pid`."""
DATABASES = range(15, 0, -1)


class Redis(Server):
    name = "redis"
    title = "Redis"
    variable = "Q_TEST_REDIS_URL"
    port = 6379
    packages = ("redis-server",)

    def __init__(self) -> None:
        self._claimed: tuple[int, int] | None = None
        self._process: OwnProcess | None = None

    def answers(self, port: int) -> bool:
        try:
            with Connection(port) as redis:
                return redis.call("PING") == "PONG"
        except (OSError, Unavailable):
            return False

    def claim(self, port: int, label: str) -> str:
        me = f"{socket.gethostname()}:{os.getpid()}"
        with Connection(port) as redis:
            for database in DATABASES:
                redis.call("SELECT", str(database))
                if _owner_is_dead(redis.call("GET", CLAIM_KEY)):
                    redis.call("FLUSHDB")
                if redis.call("DBSIZE") == 0 and redis.call("SET", CLAIM_KEY, me, "NX") == "OK":
                    self._claimed = (port, database)
                    return f"redis://127.0.0.1:{port}/{database}"
        raise Unavailable("none of its databases 1 to 15 is empty")

    def release(self) -> None:
        if self._claimed is None:
            return
        port, database = self._claimed
        self._claimed = None
        with Connection(port) as redis:
            redis.call("SELECT", str(database))
            redis.call("FLUSHDB")

    def start(self, directory: Path) -> str:
        port = free_port()
        argv = [find_binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
        argv += ["--dir", str(directory), "--save", "", "--appendonly", "no"]
        self._process = OwnProcess(argv, directory)
        self._process.wait_until(lambda: self.answers(port))
        return f"redis://127.0.0.1:{port}/0"

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


def _owner_is_dead(claim: str | int | None) -> bool:
    """Whether a claim is left over from a run on this machine that was killed."""
    host, _, pid = str(claim or "").rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class Connection:
    """Just enough of the Redis protocol to look at a server without a client library."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def call(self, *words: str) -> str | int | None:
        """Send one command and read its reply.

        Raises:
            Unavailable: The server answered with an error.
        """
        parts = [f"*{len(words)}\r\n"] + [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        self._socket.sendall("".join(parts).encode())
        line = self._lines.readline().decode().rstrip("\r\n")
        kind, rest = line[:1], line[1:]
        if kind == "+":
            return rest
        if kind == ":":
            return int(rest)
        if kind == "$":
            return None if rest == "-1" else self._lines.read(int(rest) + 2)[:-2].decode()
        raise Unavailable(f"Redis says {line!r}")
