"""Heartbeats: how often they are asked for, and that the thread that sends them ends."""

from __future__ import annotations

import threading

import pytest

from qbrokers.amqp.heart import Heart, interval_for


@pytest.mark.parametrize(
    ("asked", "silence", "interval"),
    [(120, 8.0, 4.0), (3, 8.0, 3), (0, 8.0, 0), (120, 0.0, 120), (120, 0.5, 1.0)],
)
def test_two_intervals_are_no_longer_than_the_silence_that_is_put_up_with(
    asked: float, silence: float, interval: float
) -> None:
    assert interval_for(asked, silence) == interval


class Connection:
    heartbeat = 0.02

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.threads: list[threading.Thread] = []
        self.beaten = threading.Event()

    def send_heartbeat_when_due(self) -> None:
        self.threads.append(threading.current_thread())
        if len(self.threads) > 2:
            self.beaten.set()
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_heart_beats_until_it_is_stopped(error: Exception | None) -> None:
    connection = Connection(error)
    heart = Heart(connection)
    assert connection.beaten.wait(10)
    heart.stop()
    connection.threads[0].join(10)
    assert not connection.threads[0].is_alive()
