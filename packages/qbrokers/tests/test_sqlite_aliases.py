from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(program: str, *arguments: object) -> str:
    """The aliases are global to a process, so each test has one of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_kombu_knows_sqlite_after_install(tmp_path: Path) -> None:
    program = """
import sys, kombu, qbrokers.aliases
qbrokers.aliases.install()
with kombu.Connection(f"sqlite:///{sys.argv[1]}") as connection:
    with connection.SimpleQueue("q") as queue:
        queue.put(1)
        message = queue.get(timeout=5)
        message.ack()
        print(message.payload, connection.as_uri())
"""
    path = tmp_path / "b.db"
    assert run(program, path) == f"1 sqlite:///{path}"


def test_importing_changes_nothing() -> None:
    program = """
import qbrokers.aliases, kombu.transport
print("sqlite" in kombu.transport.TRANSPORT_ALIASES)
"""
    assert run(program) == "False"


def test_redis_stays_with_kombu_unless_asked() -> None:
    pytest.importorskip("redis")
    program = """
import qbrokers.aliases, kombu.transport
qbrokers.aliases.install()
print(kombu.transport.get_transport_cls("redis").__module__)
qbrokers.aliases.install(replace=True)
print(kombu.transport.get_transport_cls("redis").__module__)
"""
    before, after = run(program).splitlines()
    assert before == "kombu.transport.redis"
    assert after.startswith("qbrokers.redis")
