"""The prefork pool: frames, recall, deaths, recycling, with real processes."""

from __future__ import annotations

import functools
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kombu.asynchronous import Hub
from pool_tools import CallRunner, Driver, Log, nap, running, touch

from qcore.errors import SoftTimeLimitExceeded
from qworker.pools import limits
from qworker.pools.contract import PoolOptions, Work
from qworker.pools.prefork import Pool

prefork = functools.partial(running, Pool)


def open_descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


def mark_and_nap(path: str, tag: int, seconds: float) -> int:
    touch(path, tag)
    nap(seconds)
    return tag


def learn(driver: Driver, kind: str = "job") -> None:
    """Let the pool see that jobs of this kind are short."""
    driver.run(*[driver.submit(None, kind) for _ in range(10)])


# --- who gets what ------------------------------------------------------------------------------


def test_every_idle_child_gets_a_job_first():
    with prefork(concurrency=3) as driver:
        driver.until(lambda: driver.pool.free_slots == 3)
        learn(driver)
        driver.run(*[driver.submit(functools.partial(nap, 0.05)) for _ in range(3)])
        assert len({driver.log.done_by[tag] for tag in (11, 12, 13)}) == 3


def test_a_job_of_unknown_kind_never_waits_behind_a_long_one():
    with prefork() as driver:
        driver.until(lambda: driver.pool.free_slots == 2)
        long = driver.submit(functools.partial(nap, 1.0), "slow")
        tags = [driver.submit(number, f"kind {number}") for number in range(20)]
        driver.run(*tags)
        assert long not in driver.log.finals


def test_short_jobs_share_frames():
    with prefork() as driver:
        learn(driver)
        child = next(driver.pool._crew.active())  # type: ignore[attr-defined]
        driver.until(lambda: driver.pool.free_slots == 2)
        tags = [driver.submit(number) for number in range(1000)]
        driver.pool.flush()
        assert len(child.in_flight) > 100
        driver.run(*tags)


def test_free_slots_count_idle_children_without_the_queue():
    with prefork() as driver:
        assert driver.pool.free_slots == 0
        driver.until(lambda: driver.pool.free_slots == 2)
        tag = driver.submit(None)
        assert driver.pool.free_slots == 1
        driver.run(tag)
        assert driver.pool.free_slots == 2


# --- recall -------------------------------------------------------------------------------------


def test_jobs_behind_one_that_turns_out_long_go_to_other_children():
    with prefork() as driver:
        learn(driver)
        driver.until(lambda: driver.pool.free_slots == 2)
        long = driver.submit(functools.partial(nap, 2.0))
        tags = [driver.submit(number) for number in range(200)]
        began = time.monotonic()
        driver.run(*tags)
        assert time.monotonic() - began < 1.0
        assert long not in driver.log.finals
        driver.run(long)
        assert driver.log.done_by[tags[-1]] != driver.log.done_by[long]


def test_outcomes_before_a_job_that_turns_out_long_are_not_held_back():
    with prefork(concurrency=1) as driver:
        learn(driver)
        before = [driver.submit(number) for number in range(5)]
        long = driver.submit(functools.partial(nap, 2.0))
        began = time.monotonic()
        driver.run(*before)
        assert time.monotonic() - began < 1.0
        driver.run(long)


def test_a_child_works_on_after_a_recall():
    with prefork(concurrency=1) as driver:
        learn(driver)
        for _ in range(3):
            long = driver.submit(functools.partial(nap, 0.15))
            tags = [driver.submit(number) for number in range(50)]
            driver.run(long, *tags)
        assert len(set(driver.log.done_by.values())) == 1


def test_recalls_at_random_moments_neither_lose_nor_double_a_job(tmp_path: Path):
    path = str(tmp_path / "runs")
    random.seed(7)
    with prefork(concurrency=3) as driver:
        learn(driver)
        tags = []
        for number in range(3000):
            seconds = 0.08 if number % 150 == 0 else 0
            tags.append(driver.submit(functools.partial(mark_and_nap, path, number, seconds)))
        driver.pool.flush()
        while len(driver.log.finals) < len(tags) + 10:
            for child in driver.pool._crew.active():  # type: ignore[attr-defined]
                if child.in_flight and child.recalled_at is None and random.random() < 0.5:
                    child.recall(random.choice(list(child.in_flight)))
                    driver.pool._watch.within(0.001)  # type: ignore[attr-defined]
            driver.pool.poll(0.002)
            driver.pool.flush()
        assert sorted(driver.log.done)[10:] == tags
    runs = Counter(Path(path).read_text().split())
    assert len(runs) == 3000
    assert set(runs.values()) == {1}


def test_taking_back_leaves_what_has_started():
    with prefork(concurrency=1) as driver:
        learn(driver)
        first = driver.submit(functools.partial(nap, 0.3))
        rest = [driver.submit(number) for number in range(20)]
        driver.pool.flush()
        driver.until(lambda: first in driver.log.accepted)
        assert set(driver.pool.take_back()) == set(rest)
        last = driver.submit("last")
        driver.run(first, last)
        assert not set(rest) & set(driver.log.finals)


# --- deaths -------------------------------------------------------------------------------------


def die(signum: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), signum)


def test_the_running_job_of_a_dead_child_is_lost_the_others_run_elsewhere():
    with prefork(concurrency=1) as driver:
        learn(driver)
        before = [driver.submit(number) for number in range(5)]
        victim = driver.submit(die)
        after = [driver.submit(number) for number in range(20)]
        driver.run(victim, *before, *after)
        pid, exitcode, started = driver.log.lost.pop(victim)
        assert (pid, exitcode, started) == (driver.log.accepted[victim], -9, True)
        assert set(after) <= set(driver.log.done)
        # Those that had ended, but were not reported, count as started.
        assert set(driver.log.lost) <= set(before)


def cut_the_line() -> None:
    os.closerange(3, 1000)
    nap(20)


def test_a_task_that_closes_all_descriptors_is_lost():
    with prefork(concurrency=1) as driver:
        tag = driver.submit(cut_the_line)
        driver.run(tag, timeout=10)
        assert driver.log.lost[tag][2] is True
        driver.run(driver.submit("next"))


def test_a_handler_may_have_work_handed_out_while_a_death_is_booked():
    with prefork(concurrency=2) as driver:
        learn(driver)
        log = driver.log
        on_lost = log.on_lost

        def lost(tag: int, pid: int, exitcode: int | None, started: bool) -> None:
            on_lost(tag, pid, exitcode, started)
            for number in range(5):
                driver.submit(number)
            driver.pool.flush()

        log.on_lost = lost  # type: ignore[method-assign]
        before = [driver.submit(number) for number in range(20)]
        victim = driver.submit(die)
        driver.run(victim, *before)
        driver.until(lambda: len(log.finals) == driver.tag)


def test_an_exit_asked_for_by_a_handler_comes_after_the_books_are_done():
    with prefork(concurrency=1) as driver:
        learn(driver)
        on_done = driver.log.on_done

        def done(tag: int, result: object, pid: int) -> None:
            on_done(tag, result, pid)
            if result == "exit":
                raise SystemExit(3)

        driver.log.on_done = done  # type: ignore[method-assign]
        tags = [driver.submit(word) for word in ("a", "exit", "b", "c")]
        with pytest.raises(SystemExit) as caught:
            driver.run(*tags, -1)
        assert caught.value.code == 3
        driver.run(*tags)
        assert set(tags) <= set(driver.log.done)


def test_an_exit_code_is_told():
    with prefork(concurrency=1) as driver:
        tag = driver.submit(functools.partial(os._exit, 3))
        driver.run(tag)
        assert driver.log.lost[tag][1] == 3


def orphan(path: str) -> None:
    """Leave a grandchild behind that holds every descriptor of ours, then die."""
    if os.fork() == 0:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not os.path.exists(path):
            time.sleep(0.01)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_death_is_noticed_although_a_grandchild_keeps_the_socket_open(tmp_path: Path):
    with prefork(concurrency=1) as driver:
        tag = driver.submit(functools.partial(orphan, str(tmp_path / "end")))
        began = time.monotonic()
        driver.run(tag)
        (tmp_path / "end").touch()
        assert tag in driver.log.lost
        assert time.monotonic() - began < 2


def test_an_idle_child_that_dies_is_replaced():
    with prefork() as driver:
        driver.until(lambda: driver.pool.free_slots == 2)
        learn(driver)
        pids = driver.pool.info()["processes"]
        for pid in pids:  # type: ignore[attr-defined]
            os.kill(pid, signal.SIGKILL)
        driver.until(lambda: driver.pool.free_slots == 2 and driver.pool.info()["processes"] != pids)
        driver.run(driver.submit("value"))


def test_sudden_death_everywhere_leaves_every_job_with_one_end(tmp_path: Path):
    """2000 jobs while children are killed at random, recycled after 1 to 3 jobs, or run into their limits."""
    path = str(tmp_path / "runs")
    random.seed(11)
    with prefork(concurrency=3, max_tasks_per_child=3) as driver:
        driver.until(lambda: driver.pool.free_slots > 0)
        before = len(open_descriptors())
        tags: list[int] = []
        last_end = time.monotonic()
        finals = 0
        while finals < 2000:
            while len(tags) < min(2000, finals + 60):
                number = len(tags)
                seconds = random.choice([0, 0, 0, 0.003, 0.02])
                limit = {"hard_limit": 0.05} if number % 40 == 0 else {}
                seconds = 5 if limit else seconds
                job = functools.partial(mark_and_nap, path, number, seconds)
                tags.append(driver.submit(job, random.choice(["a", "b"]), **limit))
            driver.pool.flush()
            driver.pool.poll(0.05)
            children = [*driver.pool._crew.everyone()]  # type: ignore[attr-defined]
            if children and random.random() < 0.05:
                random.choice(children).kill(signal.SIGKILL)
            if len(driver.log.finals) > finals:
                finals, last_end = len(driver.log.finals), time.monotonic()
            assert time.monotonic() - last_end < 5, "stalled"
        assert set(driver.log.finals) == set(tags)
        assert all(started for _, _, started in driver.log.lost.values())
        driver.until(lambda: driver.pool.free_slots == 3)
        driver.until(lambda: not driver.pool._crew.leaving)  # type: ignore[attr-defined]
        assert len(open_descriptors()) <= before + 3 * 4
    runs = Counter(Path(path).read_text().split())
    assert set(runs.values()) == {1}, "a job ran twice"
    ran = {tags[int(number)] for number in runs}
    assert ran >= set(driver.log.done)
    assert len(driver.log.done) + len(driver.log.lost) + len(driver.log.hard) == 2000
    assert len(driver.log.done) > 1500


# --- limits -------------------------------------------------------------------------------------


def test_a_hard_limit_kills_the_process():
    with prefork(concurrency=1) as driver:
        tag = driver.submit(functools.partial(time.sleep, 10), hard_limit=0.2)
        driver.run(tag)
        assert driver.log.hard == {tag: 0.2}
        after = driver.submit(os.getpid)
        driver.run(after)
        assert driver.log.done[after] != driver.log.accepted[tag]


def test_a_hard_limit_hits_no_job_behind():
    with prefork(concurrency=1) as driver:
        learn(driver)
        tag = driver.submit(functools.partial(nap, 10), hard_limit=0.1)
        rest = [driver.submit(number) for number in range(50)]
        driver.run(tag, *rest)
        assert set(driver.log.hard) == {tag}
        assert not driver.log.lost


def test_a_task_that_outlives_sigterm_by_its_own_will_is_not_followed_by_another():
    with prefork(concurrency=1, terminate_grace=0.5) as driver:
        tag = driver.submit(end_in_time, hard_limit=0.2)
        after = [driver.submit(functools.partial(nap, 0.3)) for _ in range(3)]
        driver.run(tag, *after)
        assert driver.log.done[tag] == "ended in time"
        assert set(after) <= set(driver.log.done)


def end_in_time() -> str:
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: told.append(signum))
    deadline = time.monotonic() + 5
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    return "ended in time"


def leave_a_note(path: str) -> None:
    def note(signum: int, frame: object) -> None:
        touch(path, "terminated")
        os._exit(0)

    signal.signal(signal.SIGTERM, note)
    time.sleep(10)


def test_a_grace_lets_the_task_hear_sigterm(tmp_path: Path):
    path = tmp_path / "note"
    with prefork(concurrency=1, terminate_grace=5.0) as driver:
        tag = driver.submit(functools.partial(leave_a_note, str(path)), hard_limit=0.3)
        driver.run(tag)
        assert driver.log.hard == {tag: 0.3}
        assert path.read_text() == "terminated\n"


class StoringRunner(CallRunner):
    """Notes each result in a file after the guard, as a task runner stores it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def run(self, payload: object) -> object:
        try:
            with limits.guard():
                result: Any = payload() if callable(payload) else payload
        except SoftTimeLimitExceeded:
            result = "limit"
        touch(self.path, "stored")
        return result


def test_a_soft_limit_at_the_very_end_never_strikes_outside_the_guard(tmp_path: Path):
    path = tmp_path / "stored"
    with prefork(concurrency=2, runner=functools.partial(StoringRunner, str(path))) as driver:
        random.seed(5)
        jobs = [
            driver.submit(functools.partial(spin, 0.004 + random.uniform(-0.001, 0.001)), soft_limit=0.004)
            for _ in range(1000)
        ]
        driver.run(*jobs, timeout=40)
        assert sorted(driver.log.done) == jobs
        assert len(path.read_text().split()) == 1000
        limited = sum(result == "limit" for result in driver.log.done.values())
        assert 0 < limited < 1000


def spin(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


def own_alarm() -> str:
    rang = []
    signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    nap(0.2)
    return "rang" if rang else "silence"


def test_a_task_without_a_limit_may_use_the_alarm_itself():
    with prefork(concurrency=1) as driver:
        limited = driver.submit("quick", soft_limit=5)
        driver.run(limited)
        own = driver.submit(own_alarm)
        driver.run(own)
        after = driver.submit(functools.partial(nap, 5), soft_limit=0.1)
        driver.run(after)
        assert driver.log.done[own] == "rang"
        assert driver.log.done[after] == "SoftTimeLimitExceeded"


def test_a_signal_that_does_not_kill_leaves_the_job_running():
    with prefork(concurrency=1) as driver:
        tag = driver.submit(survive)
        driver.pool.flush()
        driver.until(lambda: tag in driver.log.accepted)
        driver.pool.terminate_job(tag, signal.SIGUSR1)
        driver.run(tag)
        assert driver.log.done[tag] == "signalled"
        driver.run(driver.submit("next"))


def survive() -> str:
    got: list[int] = []
    signal.signal(signal.SIGUSR1, lambda signum, frame: got.append(signum))
    deadline = time.monotonic() + 5
    while not got and time.monotonic() < deadline:
        time.sleep(0.01)
    return "signalled" if got else "nothing came"


def test_terminating_a_job_that_waits_in_a_child_drops_it():
    with prefork(concurrency=1) as driver:
        learn(driver)
        first = driver.submit(functools.partial(nap, 0.2))
        waiting = driver.submit("never")
        last = driver.submit("last")
        driver.pool.flush()
        assert driver.pool.terminate_job(waiting)
        driver.run(first, waiting, last)
        assert driver.log.lost == {waiting: (0, None, False)}
        assert driver.log.done[last] == "last"


# --- recycling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_child_runs_no_more_than_its_share(most: int):
    with prefork(max_tasks_per_child=most) as driver:
        tags = [driver.submit(os.getpid) for _ in range(60)]
        driver.run(*tags)
        shares = Counter(driver.log.done.values())
        assert max(shares.values()) <= most
        assert not driver.log.lost


def test_never_more_jobs_at_once_than_the_pool_is_large(tmp_path: Path):
    """The spare child is started ahead, but waits until its predecessor has finished."""
    path = tmp_path / "at once"
    with prefork(concurrency=1, max_tasks_per_child=1) as driver:
        tags = [driver.submit(functools.partial(alone, str(path))) for _ in range(20)]
        driver.run(*tags)
        assert set(driver.log.done.values()) == {"alone"}


def alone(path: str) -> str:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "not alone"
    nap(0.01)
    os.unlink(path)
    return "alone"


def test_a_child_that_grew_too_large_is_replaced(caplog: pytest.LogCaptureFixture):
    with prefork(concurrency=1, max_memory_per_child_kib=200_000) as driver:
        fat = [driver.submit(functools.partial(hold, 250_000_000)), driver.submit("next")]
        driver.run(*fat)
        assert driver.log.done_by[fat[0]] != driver.log.done_by[fat[1]]
        assert "more than 200000 KiB" in caplog.text
        thin = [driver.submit("a"), driver.submit("b")]
        driver.run(*thin)
        assert driver.log.done_by[thin[0]] == driver.log.done_by[thin[1]]


hoard: list[bytes] = []


def hold(size: int) -> None:
    hoard.append(b"x" * size)


def test_restart_replaces_every_child_and_loses_nothing():
    with prefork() as driver:
        driver.until(lambda: driver.pool.free_slots == 2)
        old = set(driver.pool.info()["processes"])  # type: ignore[call-overload]
        tags = [driver.submit(functools.partial(nap, 0.2)) for _ in range(4)]
        driver.pool.flush()
        driver.pool.restart()
        driver.run(*tags)
        driver.until(lambda: driver.pool.free_slots == 2)
        assert not old & set(driver.pool.info()["processes"])  # type: ignore[call-overload]
        assert not driver.log.lost


def test_shrink_while_the_children_start():
    with prefork(concurrency=3) as driver:
        driver.pool.shrink(2)
        assert driver.pool.num_processes == 1
        driver.run(driver.submit("value"))
        assert len(driver.pool._crew.slots) == 1  # type: ignore[attr-defined]


def test_shrink_lets_busy_children_finish():
    with prefork(concurrency=3) as driver:
        tags = [driver.submit(functools.partial(nap, 0.3)) for _ in range(3)]
        driver.pool.flush()
        driver.until(lambda: len(driver.log.accepted) == 3)
        driver.pool.shrink(3)
        driver.run(*tags)
        assert len(driver.log.done) == 3
        driver.until(lambda: not [*driver.pool._crew.everyone()])  # type: ignore[attr-defined]
        tag = driver.submit("later")
        driver.pool.grow(1)
        driver.run(tag)


def test_indexes_stay_below_the_size():
    with prefork(max_tasks_per_child=2) as driver:
        tags = [driver.submit(own_name) for _ in range(20)]
        driver.run(*tags)
        assert set(driver.log.done.values()) == {("PoolWorker-1", 0), ("PoolWorker-2", 1)}


def own_name() -> tuple[str, int]:
    from billiard import current_process

    process = current_process()
    return process.name, process.index


# --- starting -----------------------------------------------------------------------------------


class BrokenRunner(CallRunner):
    def start(self) -> None:
        raise RuntimeError("no such database")


def test_a_child_that_does_not_start_is_reported_and_tried_ever_more_slowly(
    caplog: pytest.LogCaptureFixture,
):
    with prefork(concurrency=1, runner=BrokenRunner, start_failures=3) as driver:
        driver.until(lambda: bool(driver.log.fatal))
        assert "no such database" in driver.log.fatal[0]
        assert "Traceback" in driver.log.fatal[0]
        delays = [record.args[1] for record in caplog.records if "did not start" in record.msg]  # type: ignore[index]
        assert delays == [0.1, 0.2, 0.4]


class HangingRunner(CallRunner):
    def start(self) -> None:
        time.sleep(30)


def test_a_child_that_hangs_while_it_starts_is_killed(caplog: pytest.LogCaptureFixture):
    with prefork(concurrency=1, runner=HangingRunner, proc_alive_timeout=0.2, start_failures=1) as driver:
        driver.until(lambda: bool(driver.log.fatal))
        assert driver.log.fatal == ["it did not start within 0.2 seconds"]


# --- payloads -----------------------------------------------------------------------------------


def test_a_payload_that_cannot_be_pickled_costs_only_itself(caplog: pytest.LogCaptureFixture):
    with prefork(concurrency=1) as driver:
        learn(driver)
        bad, good = driver.submit(threading.Lock()), driver.submit("good")
        driver.run(bad, good)
        assert driver.log.lost == {bad: (0, None, False)}
        assert "cannot be sent" in caplog.text


def test_a_result_that_cannot_be_pickled_costs_only_itself():
    with prefork(concurrency=1) as driver:
        bad, good = driver.submit(threading.Lock), driver.submit("good")
        driver.run(bad, good)
        assert driver.log.lost[bad][2] is True
        assert driver.log.done[good] == "good"


def test_payloads_larger_than_the_socket_takes():
    with prefork() as driver:
        blob = os.urandom(3_000_000)
        tags = [driver.submit(blob) for _ in range(20)]
        driver.run(*tags)
        assert all(driver.log.done[tag] == blob for tag in tags)


def test_large_payloads_inside_a_hub():
    log = Log()
    pool = Pool(CallRunner, 2, log)
    pool.start()
    hub = Hub()
    pool.register_with_event_loop(hub)
    hub.on_tick.add(pool.flush)
    blob = os.urandom(3_000_000)
    try:
        for tag in range(10):
            pool.submit(Work(tag, "blob", blob))
        deadline = time.monotonic() + 20
        while len(log.done) < 10 and time.monotonic() < deadline:
            hub.run_once()
        assert len(log.done) == 10
        assert pool.join(5)
    finally:
        pool.terminate()
        hub.close()


class HubDriver(Driver):
    """Turns a kombu hub, and never the pool itself."""

    def __init__(self, pool: Pool, log: Log) -> None:
        super().__init__(pool, log)
        self.hub = Hub()
        pool.register_with_event_loop(self.hub)
        self.hub.on_tick.add(pool.flush)

    def until(self, condition: Callable[[], bool], timeout: float = 20.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, vars(self.log)
            self.hub.run_once()


def test_limits_recalls_and_deaths_inside_a_hub():
    with prefork() as plain:
        driver = HubDriver(plain.pool, plain.log)  # type: ignore[arg-type]
        learn(driver)
        driver.until(lambda: driver.pool.free_slots == 2)
        hard = driver.submit(functools.partial(nap, 10), hard_limit=0.2)
        soft = driver.submit(functools.partial(nap, 10), soft_limit=0.2)
        victim = driver.submit(die, "unknown")
        rest = [driver.submit(number) for number in range(100)]
        driver.run(hard, soft, victim, *rest)
        assert set(driver.log.hard) == {hard}
        assert driver.log.done[soft] == "SoftTimeLimitExceeded"
        assert driver.log.lost[victim][1:] == (-9, True)
        assert set(rest) <= set(driver.log.done)
        driver.hub.close()


def test_a_new_hub_takes_over():
    with prefork() as plain:
        first = HubDriver(plain.pool, plain.log)  # type: ignore[arg-type]
        first.run(first.submit("first"))
        first.hub.close()
        second = HubDriver(plain.pool, plain.log)  # type: ignore[arg-type]
        second.tag = first.tag
        second.run(second.submit("second"))
        assert list(plain.log.done.values()) == ["first", "second"]
        second.hub.close()


# --- processes and descriptors ------------------------------------------------------------------


def sockets() -> list[str]:
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith(("socket:", "anon_inode:[pidfd]", "anon_inode:[eventpoll]")):
            found.append(target)
    return found


def test_a_child_holds_no_descriptor_of_its_siblings():
    inherited = len(sockets())
    with prefork(concurrency=3, max_tasks_per_child=2) as driver:
        tags = [driver.submit(sockets) for _ in range(12)]
        driver.run(*tags)
        assert {len(held) - inherited for held in driver.log.done.values()} == {1}


def test_no_descriptor_stays_behind():
    before = sorted(open_descriptors())
    for _ in range(2):
        with prefork(concurrency=3) as driver:
            driver.run(*[driver.submit(number) for number in range(10)])
            assert driver.pool.join(10)
    assert sorted(open_descriptors()) == before


def test_a_child_imports_nothing_while_it_starts():
    with prefork(concurrency=1) as driver:
        tag = driver.submit(loaded)
        driver.run(tag)
        assert set(driver.log.done[tag]) <= set(sys.modules)


def loaded() -> list[str]:
    return list(sys.modules)


def test_an_idle_pool_and_a_long_job_need_no_ticks():
    with prefork() as driver:
        driver.until(lambda: driver.pool.free_slots == 2)
        tag = driver.submit(functools.partial(nap, 1.0))
        driver.pool.flush()
        driver.until(lambda: tag in driver.log.accepted)
        watch = driver.pool._watch  # type: ignore[attr-defined]
        driver.until(lambda: watch._timer is None, timeout=0.9)
        assert tag not in driver.log.finals
        driver.run(tag)


def test_tasks_may_start_processes_of_their_own():
    with prefork(concurrency=1) as driver:
        tag = driver.submit(use_multiprocessing)
        driver.run(tag)
        assert driver.log.done[tag] == 0


def use_multiprocessing() -> int | None:
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=nap, args=(0,))
    process.start()
    process.join()
    return process.exitcode


def test_ctrl_c_is_left_to_the_parent():
    with prefork(concurrency=1) as driver:
        tag = driver.submit(functools.partial(os.kill, 0, 0))
        driver.run(tag)
        os.kill(driver.log.done_by[tag], signal.SIGINT)
        again = driver.submit(os.getpid)
        driver.run(again)
        assert driver.log.done[again] == driver.log.done_by[tag]


PARENT = """
    import functools, os, sys, time
    sys.path.insert(0, {tools!r})
    from pool_tools import mark_forever, running
    from qworker.pools.prefork import Pool

    with running(Pool, concurrency=2, parent_death_signal={signal}) as driver:
        for _ in range(2):
            driver.submit(functools.partial(mark_forever, {path!r}))
        driver.pool.flush()
        driver.until(lambda: len(driver.log.accepted) == 2)
        print(*driver.pool.info()["processes"], flush=True)
        time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("signum", [int(signal.SIGKILL), None])
def test_children_end_with_their_parent(signum: int | None, tmp_path: Path):
    """At once by the kernel's signal; without it when the job is finished and the socket is at its end."""
    path = tmp_path / "go on"
    script = textwrap.dedent(PARENT).format(tools=str(Path(__file__).parent), signal=signum, path=str(path))
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    if signum is None:
        assert all(alive(pid) for pid in children)
        path.touch()
    wait_for(lambda: not any(alive(pid) for pid in children))


def wait_for(condition: Callable[[], bool], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_forking_beside_threads_that_hold_locks():
    """A lock that another thread holds at the fork must not stop a child: none of ours is shared."""
    logger = logging.getLogger("test")
    stop = threading.Event()

    def chatter() -> None:
        while not stop.is_set():
            logger.debug("noise")

    threads = [threading.Thread(target=chatter) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with prefork(max_tasks_per_child=1) as driver:
            tags = [driver.submit(functools.partial(logger.debug, "child")) for _ in range(60)]
            driver.run(*tags)
            assert not driver.log.lost
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_options_are_checked_where_they_matter():
    with pytest.raises(ValueError, match="negative"):
        Pool(CallRunner, -1, Log(), PoolOptions())
    with prefork() as driver, pytest.raises(ValueError, match="from 0 up"):
        driver.pool.grow(-1)
