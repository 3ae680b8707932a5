"""moto: Amazon's services on this machine, from the test environment's own packages."""

from __future__ import annotations

import importlib.util
import sys
import urllib.request
from pathlib import Path

from servers.contract import Server, Unavailable
from servers.process import OwnProcess, free_port

TIMEOUT_SECONDS = 5.0


class Moto(Server):
    name = "sqs"
    title = "moto"
    variable = "Q_TEST_SQS_URL"
    port = 5000
    packages = ()

    def __init__(self) -> None:
        self._process: OwnProcess | None = None

    def answers(self, port: int) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/moto-api/data.json", timeout=TIMEOUT_SECONDS
            ):
                return True
        except OSError:
            return False

    def claim(self, port: int, label: str) -> str:
        return f"sqs://test:test@127.0.0.1:{port}"

    def release(self) -> None:
        pass

    def start(self, directory: Path) -> str:
        return self.start_on(free_port(), directory)

    def start_on(self, port: int, directory: Path) -> str:
        """Start it, empty, on a port that it had before."""
        if importlib.util.find_spec("moto") is None:
            raise Unavailable("moto is not installed")
        self._process = OwnProcess(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], directory
        )
        self._process.wait_until(lambda: self.answers(port))
        return self.claim(port, "")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
