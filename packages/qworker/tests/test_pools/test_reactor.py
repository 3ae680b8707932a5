"""The loop of descriptors and timers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
from kombu.asynchronous import Hub

from qworker.pools.reactor import Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_readable_descriptor_is_reported_until_it_is_unwatched(reactor: Reactor, pipe: tuple[int, int]):
    calls: list[str] = []
    reactor.watch(pipe[0], lambda: calls.append("readable"))
    os.write(pipe[1], b"x")
    reactor.run_once(1)
    reactor.run_once(0)
    reactor.unwatch(pipe[0])
    reactor.run_once(0)
    assert calls == ["readable", "readable"]


def test_a_watch_that_ends_in_the_same_round_is_not_called(reactor: Reactor):
    pipes = [os.pipe(), os.pipe()]
    calls: list[int] = []

    def first(mine: int, other: int) -> None:
        calls.append(mine)
        reactor.unwatch(other)

    (a, _), (b, _) = pipes
    reactor.watch(a, lambda: first(a, b))
    reactor.watch(b, lambda: first(b, a))
    for _, writer in pipes:
        os.write(writer, b"x")
    reactor.run_once(1)
    assert len(calls) == 1
    reactor.unwatch(a)
    reactor.unwatch(b)
    for ends in pipes:
        os.close(ends[0])
        os.close(ends[1])


def test_timers_run_in_order_of_their_time(reactor: Reactor):
    calls: list[str] = []
    reactor.call_later(0.03, lambda: calls.append("second"))
    reactor.call_later(0.01, lambda: calls.append("first"))
    reactor.call_later(0.0, lambda: calls.append("never")).cancel()
    deadline = time.monotonic() + 5
    while len(calls) < 2 and time.monotonic() < deadline:
        reactor.run_once(None)
    assert calls == ["first", "second"]


def test_a_timer_ends_the_wait(reactor: Reactor):
    reactor.call_later(0.02, lambda: None)
    began = time.monotonic()
    reactor.run_once(30)
    assert time.monotonic() - began < 5


def test_another_thread_may_have_something_called(reactor: Reactor):
    callers: list[int] = []
    thread = threading.Thread(target=reactor.call_soon, args=(lambda: callers.append(threading.get_ident()),))
    thread.start()
    reactor.run_once(5)
    thread.join()
    assert callers == [threading.get_ident()]


def test_everything_is_mirrored_in_a_hub(reactor: Reactor, pipe: tuple[int, int]):
    calls: list[str] = []
    reactor.watch(pipe[0], lambda: (calls.append(os.read(pipe[0], 1).decode()), None)[1])
    timers = [reactor.call_later(0.01, lambda: calls.append("timer"))]
    hub = Hub()
    reactor.attach(hub)
    timers.append(reactor.call_later(0.02, lambda: calls.append("later")))
    os.write(pipe[1], b"x")
    deadline = time.monotonic() + 10
    while len(calls) < 3 and time.monotonic() < deadline:
        hub.run_once()
    assert sorted(calls) == ["later", "timer", "x"]
    reactor.unwatch(pipe[0])
    assert pipe[0] not in hub.readers
    hub.close()


def test_closing_twice_does_no_harm():
    reactor = Reactor()
    reactor.close()
    reactor.close()
    reactor.wake()
