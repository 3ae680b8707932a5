"""PostgreSQL: a database of our own on a server that was there, or a server of our own."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from servers.contract import Server, Unavailable
from servers.process import OwnProcess, find_binary, free_port, hand_over, run, unprivileged_user

TIMEOUT_SECONDS = 5.0
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""A server answers this one message with a single `S` or `N` before any login."""


class PostgreSQL(Server):
    name = "postgresql"
    title = "PostgreSQL"
    variable = "Q_TEST_POSTGRESQL_URL"
    port = 5432
    packages = ("postgresql",)

    def __init__(self) -> None:
        self._claimed: tuple[int, str] | None = None
        self._process: OwnProcess | None = None

    def answers(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
                connection.sendall(SSL_REQUEST)
                return connection.recv(1) in (b"S", b"N")
        except OSError:
            return False

    def claim(self, port: int, label: str) -> str:
        database = label.replace("-", "_")
        _sql(port, f"CREATE DATABASE {database}")
        self._claimed = (port, database)
        return f"postgresql+psycopg://postgres@127.0.0.1:{port}/{database}"

    def release(self) -> None:
        if self._claimed is not None:
            (port, database), self._claimed = self._claimed, None
            _sql(port, f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def start(self, directory: Path) -> str:
        user = unprivileged_user("postgres")
        data, port = directory / "data", free_port()
        hand_over(directory, user)
        run([find_binary("initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-N"], user=user)
        argv = [find_binary("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
        argv += ["-k", str(directory), "-c", "fsync=off"]
        self._process = OwnProcess(argv, directory, user=user)
        self._process.wait_until(lambda: self.answers(port) and _accepts(port))
        return self.claim(port, "q_test")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


def _accepts(port: int) -> bool:
    """It answers some moments before it is done starting up."""
    try:
        _sql(port, "SELECT 1")
    except Unavailable:
        return False
    return True


def _sql(port: int, statement: str) -> None:
    argv = [find_binary("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-w", "-q", "-X"]
    run([*argv, "-d", "postgres", "-c", statement])
