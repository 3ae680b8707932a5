"""Connections to SQLite brokers for the tests, and processes that use them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu

from qbrokers.sqlite import Transport


def connect(path: Path | str, **options: Any) -> Any:
    return kombu.Connection(f"sqlite:///{path}", transport=Transport, transport_options=options)


def queue(name: str = "q") -> kombu.Queue:
    return kombu.Queue(name, kombu.Exchange(name), name)


def publish(connection: Any, body: Any, name: str = "q", **options: Any) -> None:
    target = queue(name)
    connection.Producer().publish(
        body, exchange=target.exchange, routing_key=name, declare=[target], **options
    )


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a Python program in a process of its own, its standard output in a pipe."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.001)
