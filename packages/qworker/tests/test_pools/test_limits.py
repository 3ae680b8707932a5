"""Guards and shields, and the alarm behind them."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from qworker.pools import limits
from qworker.pools.alarm import AlarmLimiter
from qworker.pools.interrupt import Interrupter


class OverError(Exception):
    pass


class FinalError(Exception):
    pass


@pytest.fixture
def alarm() -> Iterator[AlarmLimiter]:
    before = signal.getsignal(signal.SIGALRM)
    yield AlarmLimiter(OverError, lambda: None)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_without_a_pool_guard_and_shield_do_nothing():
    with limits.guard(), limits.shield():
        pass


def test_the_limit_strikes_inside_the_guard(alarm: AlarmLimiter):
    alarm.open(0.02)
    with pytest.raises(OverError) as caught, alarm.guard():
        busy(5)
    assert caught.value.args == (0.02,)


def test_the_limit_does_not_strike_before_or_after_the_guard(alarm: AlarmLimiter):
    alarm.open(0.05)
    with alarm.guard():
        pass
    busy(0.1)


def test_what_comes_before_the_guard_does_not_count(alarm: AlarmLimiter):
    alarm.open(0.2)
    busy(0.25)
    with alarm.guard():
        busy(0.02)


def test_the_time_of_all_guards_of_a_job_counts(alarm: AlarmLimiter):
    alarm.open(0.05)
    with alarm.guard():
        pass
    busy(0.06)
    with pytest.raises(OverError), alarm.guard():
        busy(5)


def test_the_limit_strikes_once(alarm: AlarmLimiter):
    alarm.open(0.02)
    with alarm.guard():
        with pytest.raises(OverError):
            busy(5)
        busy(0.1)


def test_guards_nest(alarm: AlarmLimiter):
    alarm.open(0.02)
    with pytest.raises(OverError), alarm.guard():
        with alarm.guard():
            pass
        busy(5)


def test_no_timer_stays_armed(alarm: AlarmLimiter):
    alarm.open(30)
    with alarm.guard():
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


class Recording(Interrupter):
    """Notes what is sent, in place of raising it from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[type[BaseException]] = []
        self.recalled = 0

    def _send(self, error: type[BaseException]) -> None:
        self.sent.append(error)

    def _recall(self) -> None:
        self.recalled += 1


def test_an_interrupt_inside_the_guard_is_sent():
    job = Recording()
    with job.guard():
        assert job.interrupt(OverError, 1.0)
    assert job.sent == [OverError]


def test_an_interrupt_that_has_not_arrived_at_the_end_of_the_guard_is_recalled():
    job = Recording()
    with job.guard():
        job.interrupt(OverError, 1.0)
    assert job.recalled == 1


def test_an_interrupt_before_the_guard_waits_for_it():
    job = Recording()
    assert job.interrupt(OverError, 1.0)
    with pytest.raises(OverError), job.guard():
        pytest.fail("entered")
    assert job.sent == []


def test_an_interrupt_after_the_end_comes_too_late():
    job = Recording()
    job.close()
    assert not job.interrupt(OverError, 1.0)


def test_a_shield_keeps_an_interrupt_until_its_end():
    job = Recording()
    reached = []
    with pytest.raises(OverError), job.guard(), job.shield():
        job.interrupt(OverError, 1.0)
        reached.append(True)
    assert reached == [True]
    assert job.sent == []


def test_a_final_interrupt_cannot_be_swallowed():
    job = Recording()
    with pytest.raises(FinalError) as caught, job.guard():
        job.interrupt(FinalError, 2.5, finally_=True)
    assert caught.value.args == (2.5,)


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_interrupts_of_a_thread_hit_only_the_guard():
    """A thread that goes in and out of its guard is hit inside, or not at all."""
    from qworker.pools.threads import ThreadInterrupter

    outside: list[BaseException] = []
    hits = 0
    for number in range(400):
        job = ThreadInterrupter()
        ready = threading.Event()
        result: list[str] = []

        def body(
            job: ThreadInterrupter = job, ready: threading.Event = ready, result: list[str] = result
        ) -> None:
            try:
                ready.set()
                try:
                    with job.guard():
                        busy(0.0005)
                    result.append("ran")
                except OverError:
                    result.append("hit")
                busy(0.0005)
            except BaseException as error:
                outside.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        ready.wait()
        busy(0.000005 * number)
        job.interrupt(OverError, 1.0)
        thread.join()
        hits += result == ["hit"]
    assert outside == []
    assert 0 < hits < 400
