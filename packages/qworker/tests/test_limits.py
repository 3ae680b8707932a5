from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qworker.limits import HeldRequests, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Timer:
    """Calls back when the test says that the time has come."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_after(self, seconds: float, callback: Callable[[], None]) -> Any:
        self.calls.append((seconds, callback))
        return self

    def cancel(self) -> None:
        self.calls.clear()

    def fire(self) -> None:
        calls, self.calls = self.calls, []
        for _, callback in calls:
            callback()


def test_bucket_lets_its_capacity_through_at_once() -> None:
    bucket = TokenBucket(10, capacity=2, clock=Clock())
    assert [bucket.consume(1) for _ in range(3)] == [True, True, False]


def test_bucket_refills_at_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(2, clock=clock)
    assert bucket.consume(1)
    assert bucket.expected_time(1) == pytest.approx(0.5)
    clock.now += 0.5
    assert bucket.consume(1)


def test_idle_bucket_saves_no_more_than_its_capacity() -> None:
    clock = Clock()
    bucket = TokenBucket(100, capacity=1, clock=clock)
    clock.now += 1000
    assert [bucket.consume(1), bucket.consume(1)] == [True, False]


def test_waiting_the_expected_time_is_always_enough() -> None:
    clock = Clock()
    bucket = TokenBucket(3.7, clock=clock)
    for _ in range(1000):
        assert bucket.consume(1)
        clock.now += bucket.expected_time(1)


def test_bucket_refuses_a_rate_of_zero() -> None:
    with pytest.raises(ValueError, match="fill_rate"):
        TokenBucket(0)


def test_held_requests_are_released_in_order_when_tokens_come() -> None:
    clock, timer, released = Clock(), Timer(), []
    held = HeldRequests(TokenBucket(1, clock=clock), timer, released.append)
    assert held.admit("first")
    assert not held.admit("second")
    assert not held.admit("third")
    clock.now += 1
    timer.fire()
    assert released == ["second"]
    clock.now += 1
    timer.fire()
    assert released == ["second", "third"]
    assert timer.calls == []


def test_no_request_overtakes_those_that_are_held() -> None:
    clock, timer = Clock(), Timer()
    held = HeldRequests(TokenBucket(1, clock=clock), timer, lambda request: None)
    held.admit("first")
    held.admit("second")
    clock.now += 5
    assert not held.admit("third")


def test_take_all_empties_and_cancels() -> None:
    timer = Timer()
    held = HeldRequests(TokenBucket(1, clock=Clock()), timer, lambda request: None)
    held.admit("first")
    held.admit("second")
    assert held.take_all() == ["second"]
    assert timer.calls == []
    assert held.take_all() == []
