"""MariaDB: a database of our own on a server that was there, or a server of our own."""

from __future__ import annotations

import socket
from pathlib import Path

from servers.contract import Server
from servers.process import OwnProcess, find_binary, free_port, hand_over, run, unprivileged_user

TIMEOUT_SECONDS = 5.0
PROTOCOL_VERSION = 10
"""First byte of the greeting, after the four bytes of packet header."""


class MariaDB(Server):
    name = "mariadb"
    title = "MariaDB"
    variable = "Q_TEST_MARIADB_URL"
    port = 3306
    packages = ("mariadb-server",)

    def __init__(self) -> None:
        self._claimed: tuple[int, str] | None = None
        self._process: OwnProcess | None = None

    def answers(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
                greeting = connection.recv(5)
        except OSError:
            return False
        return len(greeting) == 5 and greeting[4] == PROTOCOL_VERSION

    def claim(self, port: int, label: str) -> str:
        database = label.replace("-", "_")
        _sql(port, f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        self._claimed = (port, database)
        return f"mariadb+pymysql://root@127.0.0.1:{port}/{database}"

    def release(self) -> None:
        if self._claimed is not None:
            (port, database), self._claimed = self._claimed, None
            _sql(port, f"DROP DATABASE IF EXISTS {database}")

    def start(self, directory: Path) -> str:
        user = unprivileged_user("mysql")
        data, port = directory / "data", free_port()
        hand_over(directory, user)
        install = [find_binary("mariadb-install-db", "mysql_install_db"), "--no-defaults"]
        install += [f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        run(install, user=user)
        argv = [find_binary("mariadbd", "mysqld"), "--no-defaults", f"--datadir={data}", f"--port={port}"]
        argv += ["--bind-address=127.0.0.1", f"--socket={directory}/socket", "--skip-name-resolve"]
        argv += [f"--pid-file={directory}/pid", "--innodb-flush-log-at-trx-commit=0"]
        self._process = OwnProcess(argv, directory, user=user)
        self._process.wait_until(lambda: self.answers(port))
        return self.claim(port, "q_test")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


def _sql(port: int, statement: str) -> None:
    argv = [find_binary("mariadb", "mysql"), "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1"]
    run([*argv, "-P", str(port), "-u", "root", "-e", statement])
