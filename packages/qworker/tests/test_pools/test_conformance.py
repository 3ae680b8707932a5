"""What every pool does alike."""

from __future__ import annotations

import asyncio
import functools
import importlib
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from kombu.asynchronous import Hub
from pool_tools import CallRunner, Driver, Log, fast, nap, running

from qcore.errors import SoftTimeLimitExceeded
from qworker.pools import limits
from qworker.pools.contract import Pool, Work
from qworker.pools.errors import LimitUnsupported, PoolClosed

HERE = ["prefork", "threads", "solo", "asyncio"]


def pool_class(name: str) -> type[Pool]:
    module = importlib.import_module(f"qworker.pools.{name}")
    found: type[Pool] = module.Pool
    return found


@pytest.fixture(params=HERE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(name: str) -> Iterator[Driver]:
    with running(pool_class(name)) as driver:
        yield driver


def test_every_pool_has_its_entry_point():
    names = {point.name for point in entry_points(group="qworker.pools")}
    assert names == {"prefork", "processes", "threads", "solo", "asyncio", "gevent", "eventlet"}


def test_a_job_is_accepted_then_done(driver: Driver):
    tag = driver.submit("value")
    driver.run(tag)
    assert driver.log.done == {tag: "value"}
    assert abs(driver.log.started[tag] - time.monotonic()) < 5


def test_a_thousand_jobs_each_end_once(driver: Driver):
    tags = [driver.submit(number) for number in range(1000)]
    driver.run(*tags)
    assert [driver.log.done[tag] for tag in tags] == list(range(1000))
    assert set(driver.log.accepted) == set(tags)


def test_submit_itself_runs_nothing(driver: Driver):
    driver.submit("value")
    assert driver.log.accepted == {}


def test_a_closed_pool_takes_nothing_more(driver: Driver):
    driver.pool.close()
    with pytest.raises(PoolClosed, match="closed"):
        driver.submit("late")


def test_join_runs_what_was_given(driver: Driver):
    tags = [driver.submit(functools.partial(nap, 0.01)) for _ in range(20)]
    assert driver.pool.join(10)
    assert sorted(driver.log.done) == tags


def test_join_tells_when_time_runs_out(name: str):
    if name == "solo":
        pytest.skip("runs the job inside join")
    with running(pool_class(name)) as driver:
        tag = driver.submit(fast(30))
        driver.pool.flush()
        driver.until(lambda: tag in driver.log.accepted)
        assert driver.pool.join(0.1) is False


def test_terminate_reports_everything_as_lost(name: str):
    if name == "solo":
        pytest.skip("has nothing running when terminate is called")
    with running(pool_class(name)) as driver:
        tags = [driver.submit(fast(30)) for _ in range(5)]
        driver.pool.flush()
        driver.until(lambda: len(driver.log.accepted) == 2)
        driver.pool.terminate()
        assert sorted(driver.log.lost) == tags
        assert sum(started for _, _, started in driver.log.lost.values()) == 2


def test_a_queued_job_can_be_dropped(driver: Driver):
    tag = driver.submit("never")
    assert driver.pool.terminate_job(tag)
    driver.pool.flush()
    assert driver.log.lost[tag][2] is False
    assert not driver.pool.terminate_job(tag)


def test_unstarted_jobs_can_be_taken_back(driver: Driver):
    tags = [driver.submit(number) for number in range(3)]
    assert driver.pool.take_back() == tags
    driver.pool.flush()
    last = driver.submit("last")
    driver.run(last)
    assert list(driver.log.finals) == [last]


def test_a_runner_that_raises_loses_the_job_only(name: str):
    class Raising(CallRunner):
        def run(self, payload: object) -> object:
            if payload == "bad":
                raise RuntimeError("a bug")
            return payload

        async def arun(self, payload: object) -> object:
            return self.run(payload)

    with running(pool_class(name), runner=Raising) as driver:
        bad, good = driver.submit("bad"), driver.submit("good")
        driver.run(bad, good)
        assert driver.log.lost[bad][2] is True
        assert driver.log.done[good] == "good"


def test_outcomes_come_after_the_flush_of_their_results(name: str, tmp_path: Path):
    class Flushing(CallRunner):
        def __init__(self) -> None:
            self.buffer: list[object] = []

        def run(self, payload: object) -> object:
            self.buffer.append(payload)
            return payload

        async def arun(self, payload: object) -> object:
            return self.run(payload)

        def flush(self) -> None:
            buffer, self.buffer = self.buffer, []
            with (tmp_path / "stored").open("a") as file:
                file.writelines(f"{item}\n" for item in buffer)

    with running(pool_class(name), runner=Flushing) as driver:
        seen: list[bool] = []
        done = driver.log.on_done

        def on_done(tag: int, result: object, pid: int) -> None:
            seen.append(str(result) in (tmp_path / "stored").read_text().split())
            done(tag, result, pid)

        driver.log.on_done = on_done  # type: ignore[method-assign]
        driver.pool._reports._events = driver.log  # type: ignore[attr-defined]
        driver.run(*[driver.submit(number) for number in range(50)])
        assert seen == [True] * 50


def test_results_that_cannot_be_flushed_are_not_done(name: str):
    class Broken(CallRunner):
        def flush(self) -> None:
            raise OSError("store is away")

    with running(pool_class(name), runner=Broken) as driver:
        tag = driver.submit("value")
        driver.run(tag)
        assert driver.log.lost[tag][2] is True


def test_an_error_in_a_handler_costs_nobody_a_job(name: str):
    with running(pool_class(name)) as driver:
        done = driver.log.on_done

        def on_done(tag: int, result: object, pid: int) -> None:
            done(tag, result, pid)
            raise RuntimeError("handler")

        driver.log.on_done = on_done  # type: ignore[method-assign]
        tags = [driver.submit(number) for number in range(20)]
        driver.run(*tags)
        assert sorted(driver.log.done) == tags


def test_turns_inside_a_hub(name: str):
    log = Log()
    pool = pool_class(name)(CallRunner, 2, log)
    pool.start()
    hub = Hub()
    pool.register_with_event_loop(hub)
    hub.on_tick.add(pool.flush)
    try:
        for tag in range(500):
            pool.submit(Work(tag, "job", tag))
        deadline = time.monotonic() + 20
        while len(log.done) < 500 and time.monotonic() < deadline:
            hub.run_once()
        assert len(log.done) == 500
    finally:
        pool.terminate()
        hub.close()


def test_turns_in_a_thread_of_its_own(name: str):
    with running(pool_class(name), own_thread=True) as driver:
        finished = threading.Event()
        on_done = driver.log.on_done

        def done(tag: int, result: object, pid: int) -> None:
            on_done(tag, result, pid)
            if len(driver.log.done) == 200:
                finished.set()

        driver.log.on_done = done  # type: ignore[method-assign]
        for number in range(200):
            driver.submit(number)
            driver.pool.flush()
        assert finished.wait(20)
        assert driver.pool.join(10)


# --- limits -------------------------------------------------------------------------------------


def clean_up() -> str:
    try:
        nap(10)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "slept"


async def aclean_up() -> str:
    try:
        await asyncio.sleep(10)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "slept"


def test_a_soft_limit_can_be_caught_by_the_task(name: str, driver: Driver):
    tag = driver.submit(aclean_up if name == "asyncio" else clean_up, soft_limit=0.2)
    began = time.monotonic()
    driver.run(tag)
    assert driver.log.done[tag] == "cleaned up"
    assert driver.log.soft == {tag: 0.2}
    assert time.monotonic() - began < 2


def test_a_soft_limit_reaches_a_coroutine_in_every_pool(driver: Driver):
    tag, after = driver.submit(aclean_up, soft_limit=0.2), driver.submit(functools.partial(aquick, 7))
    began = time.monotonic()
    driver.run(tag, after)
    assert driver.log.done == {tag: "cleaned up", after: 7}
    assert driver.log.soft == {tag: 0.2}
    assert time.monotonic() - began < 5


async def aquick(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_a_soft_limit_does_not_touch_a_job_that_ends_in_time(driver: Driver):
    tags = [driver.submit("quick", soft_limit=0.05) for _ in range(20)]
    driver.run(*tags)
    last = driver.submit(fast(0.15))
    driver.run(last)
    assert driver.log.done[last] == "slept"
    assert driver.log.soft == {}


def test_a_hard_limit_ends_the_job_and_frees_its_place(name: str):
    if not pool_class(name).capabilities.hard_limit:
        pytest.skip("cannot enforce hard limits, and says so")
    with running(pool_class(name), concurrency=1) as driver:
        began = time.monotonic()
        tag, after = driver.submit(fast(10), hard_limit=0.3), driver.submit("next")
        driver.run(tag, after)
        assert driver.log.hard == {tag: 0.3}
        assert driver.log.done[after] == "next"
        assert time.monotonic() - began < 3


def test_soft_then_hard(name: str):
    if not pool_class(name).capabilities.hard_limit:
        pytest.skip("cannot enforce hard limits")

    with running(pool_class(name)) as driver:
        tag = driver.submit(astubborn if name == "asyncio" else stubborn, soft_limit=0.1, hard_limit=0.5)
        driver.run(tag)
        assert driver.log.soft == {tag: 0.1}
        assert driver.log.hard == {tag: 0.5}


def stubborn() -> None:
    try:
        nap(10)
    except SoftTimeLimitExceeded:
        nap(10)


async def astubborn() -> None:
    try:
        await asyncio.sleep(10)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(10)


def shielded() -> str:
    try:
        with limits.shield():
            nap(0.4)
            reached = "the end of the shield"
    except SoftTimeLimitExceeded:
        return reached
    return "no limit"


def test_a_shield_holds_a_soft_limit_off(name: str, driver: Driver):
    tag = driver.submit(shielded, soft_limit=0.1)
    driver.run(tag)
    assert driver.log.done[tag] == "the end of the shield"


def test_a_running_job_can_be_terminated(name: str):
    with running(pool_class(name), concurrency=1) as driver:
        tag = driver.submit(fast(10))
        after = driver.submit("next")
        if name == "solo":
            pytest.skip("is not there to be asked while it runs a job")
        driver.pool.flush()
        driver.until(lambda: tag in driver.log.accepted)
        assert driver.pool.terminate_job(tag)
        driver.run(tag, after)
        assert driver.log.lost[tag][2] is True
        assert driver.log.done[after] == "next"


# --- size ---------------------------------------------------------------------------------------


def test_grow_and_shrink(name: str, driver: Driver):
    if not driver.pool.capabilities.resize:
        with pytest.raises(LimitUnsupported):
            driver.pool.grow()
        return
    driver.pool.grow(2)
    assert driver.pool.num_processes == 4
    tags = [driver.submit(fast(0.5)) for _ in range(4)]
    driver.pool.flush()
    driver.until(lambda: len(driver.log.accepted) == 4)
    driver.pool.shrink(3)
    assert driver.pool.num_processes == 1
    driver.run(*tags)
    assert len(driver.log.done) == 4
    with pytest.raises(ValueError, match="cannot"):
        driver.pool.shrink(2)


def test_info_names_the_implementation(driver: Driver):
    info = driver.pool.info()
    assert str(info["implementation"]).endswith(":Pool")
    assert info["max-concurrency"] == driver.pool.num_processes


def test_options_that_need_processes_are_refused_elsewhere(name: str):
    if pool_class(name).capabilities.recycle:
        return
    with (
        pytest.raises(LimitUnsupported, match="max_tasks_per_child"),
        running(pool_class(name), max_tasks_per_child=3),
    ):
        pass


# --- greenlets, which need a process that is patched from its start ------------------------------


GREEN = """
    {patch}
    import time
    from qworker.pools import limits
    from qworker.pools.{name} import Pool
    from qworker.pools.contract import Work
    from qcore.errors import SoftTimeLimitExceeded
    import sys
    sys.path.insert(0, {tools!r})
    from pool_tools import CallRunner, running

    def clean_up():
        try:
            time.sleep(10)
        except SoftTimeLimitExceeded:
            return "cleaned up"

    with running(Pool, concurrency=50) as driver:
        began = time.monotonic()
        driver.run(*[driver.submit(lambda: time.sleep(0.2)) for _ in range(50)])
        assert time.monotonic() - began < 2, "not at once"
        soft = driver.submit(clean_up, soft_limit=0.1)
        hard = driver.submit(lambda: time.sleep(10), hard_limit=0.2)
        doomed = driver.submit(lambda: time.sleep(10))
        driver.pool.flush()
        driver.until(lambda: doomed in driver.log.accepted)
        driver.pool.terminate_job(doomed)
        driver.run(soft, hard, doomed, timeout=5)
        assert driver.log.done[soft] == "cleaned up"
        assert driver.log.hard == {{hard: 0.2}}
        assert driver.log.lost[doomed][2]
        last = [driver.submit(n) for n in range(500)]
        assert driver.pool.join(5)
        assert set(last) <= set(driver.log.done)
    print("good")
"""


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("gevent", "from gevent import monkey; monkey.patch_all()"),
        ("eventlet", "import eventlet; eventlet.monkey_patch()"),
    ],
)
def test_greenlets(name: str, patch: str):
    # Not imported here: it would change this process, too.
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    script = textwrap.dedent(GREEN).format(name=name, patch=patch, tools=str(Path(__file__).parent))
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.strip() == "good", ended.stderr
