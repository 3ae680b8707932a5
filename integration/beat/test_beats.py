"""Several beats on one Redis, killed and frozen; and a beat whose broker freezes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from proxy import Proxy

PROGRAM = Path(__file__).with_name("beat_program.py")
LONG_SECONDS = 30.0

Start = Callable[..., subprocess.Popen[str]]


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


@pytest.fixture
def name() -> str:
    return f"beats-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client(redis_url: str, name: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
        client.delete(name, f"_kombu.binding.{name}", *client.scan_iter(f"qbeat:{name}:*"))


@pytest.fixture
def start(redis_url: str, name: str, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(scheduler: str = "redis", broker: str = redis_url, filename: str = "") -> subprocess.Popen[str]:
        filename = filename or (redis_url if scheduler == "redis" else str(tmp_path / "schedule"))
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), broker, name, scheduler, filename],
            stdout=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def ids(client: Any, name: str) -> list[str]:
    return [json.loads(text)["headers"]["id"] for text in client.lrange(name, 0, -1)]


def runs(client: Any, name: str) -> int:
    text = client.hget(f"qbeat:{name}:runs", "entry")
    return int(json.loads(text)[1]) if text else 0


def leader(client: Any, name: str) -> str | None:
    found: str | None = client.get(f"qbeat:{name}:lease")
    return found


def test_three_beats_send_once_though_the_leader_is_killed_again_and_again(
    start: Start, client: Any, name: str
) -> None:
    kills = 4
    beats = {}
    for _ in range(kills):
        while len(beats) < 3:
            process = start()
            beats[process.pid] = process
        tokens_before = leader(client, name)
        sent = client.llen(name)
        wait_until(lambda sent=sent: client.llen(name) >= sent + 3)
        assert tokens_before is None or leader(client, name) is not None
        victim = next(iter(beats))
        beats.pop(victim).kill()
    sent = client.llen(name)
    wait_until(lambda: client.llen(name) >= sent + 3)
    for process in beats.values():
        process.terminate()
    for process in beats.values():
        assert process.wait(LONG_SECONDS) == 0
    found = ids(client, name)
    assert len(found) == len(set(found))
    # A kill between sending and writing that down leaves one run uncounted.
    assert 0 <= len(found) - runs(client, name) <= kills
    assert leader(client, name) is None, "the last one let go"


def test_a_beat_that_was_frozen_stands_by_when_it_thaws(start: Start, client: Any, name: str) -> None:
    first = start()
    wait_until(lambda: client.llen(name) >= 2)
    token = leader(client, name)
    second = start()
    os.kill(first.pid, signal.SIGSTOP)
    wait_until(lambda: leader(client, name) not in (None, token))
    sent = client.llen(name)
    wait_until(lambda: client.llen(name) >= sent + 2)
    os.kill(first.pid, signal.SIGCONT)
    started, before = time.monotonic(), client.llen(name)
    wait_until(lambda: client.llen(name) >= before + 6)
    assert time.monotonic() - started > 2.0, "two beats would have sent six runs in half the time"
    assert leader(client, name) != token
    for process in (first, second):
        process.terminate()
        assert process.wait(LONG_SECONDS) == 0


def test_a_beat_goes_on_after_its_broker_was_cut_off(
    start: Start, client: Any, name: str, redis_url: str
) -> None:
    server = urlsplit(redis_url)
    with Proxy(server.hostname or "127.0.0.1", server.port or 6379) as proxy:
        process = start("persistent", server._replace(netloc=f"127.0.0.1:{proxy.port}").geturl())
        wait_until(lambda: client.llen(name) >= 2)
        proxy.refuse()
        sent = client.llen(name)
        time.sleep(3)  # how long the broker is away is what is tested
        assert process.poll() is None
        assert client.llen(name) <= sent + 1
        proxy.accept()
        wait_until(lambda: client.llen(name) >= sent + 4)
        process.terminate()
        assert process.wait(LONG_SECONDS) == 0
    found = ids(client, name)
    assert len(found) == len(set(found))


def test_a_beat_goes_on_after_its_broker_was_frozen(
    start: Start, client: Any, name: str, redis_url: str
) -> None:
    server = urlsplit(redis_url)
    with Proxy(server.hostname or "127.0.0.1", server.port or 6379) as proxy:
        process = start("persistent", server._replace(netloc=f"127.0.0.1:{proxy.port}").geturl())
        wait_until(lambda: client.llen(name) >= 2)
        proxy.freeze()
        time.sleep(3)  # how long the broker is frozen is what is tested
        assert process.poll() is None
        sent = client.llen(name)
        proxy.thaw()
        wait_until(lambda: client.llen(name) >= sent + 4)
        process.terminate()
        assert process.wait(LONG_SECONDS) == 0
    found = ids(client, name)
    assert len(found) - len(set(found)) <= 1, "at most the try that the freeze hit got through as well"
