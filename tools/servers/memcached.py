"""memcached: it has no corners to give, so the tests prefix their keys; or a server of our own."""

from __future__ import annotations

import socket
from pathlib import Path

from servers.contract import Server
from servers.process import OwnProcess, find_binary, free_port, unprivileged_user

TIMEOUT_SECONDS = 5.0


class Memcached(Server):
    name = "memcached"
    title = "memcached"
    variable = "Q_TEST_MEMCACHED_URL"
    port = 11211
    packages = ("memcached",)

    def __init__(self) -> None:
        self._process: OwnProcess | None = None

    def answers(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
                connection.sendall(b"version\r\n")
                return connection.recv(7) == b"VERSION"
        except OSError:
            return False

    def claim(self, port: int, label: str) -> str:
        return f"memcache://127.0.0.1:{port}/"

    def release(self) -> None:
        pass

    def start(self, directory: Path) -> str:
        port = free_port()
        argv = [find_binary("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0"]
        user = unprivileged_user("memcache")
        self._process = OwnProcess([*argv, "-u", user] if user else argv, directory)
        self._process.wait_until(lambda: self.answers(port))
        return f"memcache://127.0.0.1:{port}/"

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
