"""Several processes on one file: killed, forked, started together, with a clock that jumps."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kombu
import pytest
from sqlite_support import connect, publish, queue, start, wait_for

from qbrokers.errors import LeaseLost

WORKER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from sqlite_support import connect, queue

connection = connect(sys.argv[1])
channel = connection.channel()
channel.basic_qos(0, 20, False)
effects = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def work(message):
    # The effect first: a message is acknowledged only when it is visible.
    os.write(effects, (str(message.decode()) + "\\n").encode())
    message.ack()

import kombu
with kombu.Consumer(channel, [queue()], on_message=work):
    print("ready", flush=True)
    while True:
        try:
            connection.drain_events(timeout=5)
        except TimeoutError:
            pass
"""

HERE = str(Path(__file__).parent)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_every_message_has_its_effect_although_workers_are_killed(path: Path, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    kills = 8
    with connect(path) as connection:
        workers = [start(WORKER, path, effects, HERE) for _ in range(2)]
        published = 0

        def work_goes_on() -> bool:
            nonlocal published
            publish(connection, published)
            published += 1
            return published % 200 == 0 and published - len(set(effects.read_text().split())) < 100

        try:
            for _ in range(kills):
                wait_for(work_goes_on)
                stop(workers.pop(0))
                workers.append(start(WORKER, path, effects, HERE))
            wait_for(lambda: len(set(effects.read_text().split())) == published, seconds=30)
        finally:
            for worker in workers:
                stop(worker)
    with connect(path) as connection:
        bound = queue()(connection.default_channel)
        wait_for(lambda: (message := bound.get()) is None or message.ack(), seconds=5)
    done = effects.read_text().split()
    # Only what was in the hands of a killed worker came twice, at most 20 messages each.
    assert len(done) - len(set(done)) <= (kills + 2) * 20


def test_dead_consumer_is_noticed_within_a_second(path: Path) -> None:
    holder = """
import sys
sys.path.insert(0, sys.argv[2])
from sqlite_support import connect, queue
connection = connect(sys.argv[1])
message = queue()(connection.default_channel).get()
print("holding", flush=True)
sys.stdin.read()
"""
    with connect(path) as connection:
        publish(connection, 1)
        process = subprocess.Popen(
            [sys.executable, "-c", holder, str(path), HERE],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        received: list[Any] = []
        with connection.Consumer([queue()], on_message=received.append):
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.5)
            process.kill()
            killed = time.monotonic()
            connection.drain_events(timeout=5)
        assert time.monotonic() - killed < 1.0
        with process:
            pass


def test_stopped_process_loses_its_messages_and_learns_of_it(path: Path) -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[2])
from sqlite_support import connect, queue
from qbrokers.errors import LeaseLost
connection = connect(sys.argv[1], lease_seconds=0.6, heartbeat_seconds=0.1)
import kombu
held = []
kombu.Consumer(connection.channel(), [queue()], on_message=held.append).consume()
connection.drain_events(timeout=10)
print("holding", flush=True)
try:
    while True:
        try:
            # Short, so that the loss is often found between two calls.
            connection.drain_events(timeout=0.01)
        except TimeoutError:
            pass
except LeaseLost:
    print("lost", flush=True)
connection.release()
"""
    with connect(path, watch_seconds=0.1) as connection:
        publish(connection, 1)
        process = start(program, path, HERE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holding\n"
            os.kill(process.pid, signal.SIGSTOP)
            received: list[Any] = []
            with connection.Consumer([queue()], on_message=received.append):
                connection.drain_events(timeout=5)
                received[0].ack()
            os.kill(process.pid, signal.SIGCONT)
            assert process.stdout.readline() == "lost\n"
            assert process.wait(10) == 0
        finally:
            stop(process)


def test_many_processes_create_the_file_together(path: Path) -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[2])
from sqlite_support import connect, publish
sys.stdin.readline()
with connect(sys.argv[1]) as connection:
    publish(connection, int(sys.argv[3]))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), HERE, str(number)],
            stdin=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0
    with connect(path) as connection:
        bound = queue()(connection.default_channel)
        assert sorted(bound.get(no_ack=True).decode() for _ in processes) == list(range(6))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: there are threads
def test_forked_child_publishes_and_leaves_the_parent_its_messages(path: Path) -> None:
    with connect(path) as connection:
        publish(connection, "parent")
        bound = queue()(connection.default_channel)
        held = bound.get()
        closed_before = connect(path)
        closed_before.channel().basic_get("q")
        closed_before.release()
        child = os.fork()
        if not child:
            code = 1
            try:
                publish(connection, "child")
                connection.release()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        message = bound.get()
        assert message.decode() == "child"
        held.ack()
        message.ack()
        connection.default_channel.basic_recover(requeue=True)
        assert bound.get() is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: there are threads
def test_forked_child_has_locks_of_its_own(path: Path) -> None:
    # SQLite would count the parent's locks as the child's, and then not take them: another process could
    # remove the log under the child. The kernel's list shows what is really held.
    with connect(path) as connection:
        publish(connection, 1)
        child = os.fork()
        if not child:
            code = 1
            try:
                connection.connection.store.database.open()
                connection.connection.store.count("q")
                locks = Path("/proc/locks").read_text()
                code = (
                    0
                    if any(f" {os.getpid()} " in line and "READ" in line for line in locks.splitlines())
                    else 2
                )
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


def test_killed_parent_is_dead_although_its_children_live(path: Path) -> None:
    program = """
import os, sys, time, warnings
sys.path.insert(0, sys.argv[2])
from sqlite_support import connect, queue
connection = connect(sys.argv[1])
message = queue()(connection.default_channel).get()
# There is a thread, which Python 3.12 warns of.
warnings.simplefilter("ignore", DeprecationWarning)
if not os.fork():
    os.close(1)
    while os.getppid() != 1 and os.path.exists(sys.argv[3]):
        time.sleep(0.02)
    while os.path.exists(sys.argv[3]):
        time.sleep(0.02)
    os._exit(0)
print("holding", flush=True)
time.sleep(60)
"""
    flag = path.with_name("running")
    flag.touch()
    with connect(path) as connection:
        publish(connection, 1)
        process = start(program, path, HERE, flag)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holding\n"
            stop(process)
            received: list[Any] = []
            with connection.Consumer([queue()], on_message=received.append):
                connection.drain_events(timeout=5)
        finally:
            flag.unlink()


def test_clock_set_back_neither_doubles_nor_freezes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"lease_seconds": 0.6, "heartbeat_seconds": 0.1, "watch_seconds": 0.05}
    with connect(path, **options) as worker, connect(path, **options) as observer:
        publish(observer, "live")
        held = queue()(worker.default_channel).get()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 7200)
        received: list[Any] = []
        with observer.Consumer([queue()], on_message=received.append):
            with pytest.raises(TimeoutError):
                observer.drain_events(timeout=1.5)
            publish(worker, "new")
            observer.drain_events(timeout=2)
        assert [message.decode() for message in received] == ["new"]
        held.ack()
        worker.default_channel.flush()


def test_clock_set_forward_does_not_end_leases(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"lease_seconds": 0.6, "heartbeat_seconds": 0.1, "watch_seconds": 0.05}
    with connect(path, **options) as worker, connect(path, **options) as observer:
        publish(observer, "live")
        held = queue()(worker.default_channel).get()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 7200)
        with observer.Consumer([queue()], on_message=print), pytest.raises(TimeoutError):
            observer.drain_events(timeout=1.5)
        held.ack()


def test_other_process_is_woken_within_milliseconds(path: Path) -> None:
    program = """
import sys, time
sys.path.insert(0, sys.argv[2])
from sqlite_support import connect, queue
import kombu
def echo(message):
    print(time.monotonic() - message.decode(), flush=True)
with connect(sys.argv[1], poll_seconds=30) as connection:
    with kombu.Consumer(connection.channel(), [queue()], on_message=echo, no_ack=True):
        print("ready", flush=True)
        while True:
            connection.drain_events()
"""
    with connect(path) as connection:
        queue()(connection.default_channel).declare()
        process = start(program, path, HERE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            delays = []
            for _ in range(50):
                publish(connection, time.monotonic())
                delays.append(float(process.stdout.readline()))
        finally:
            stop(process)
    assert sorted(delays)[25] < 0.010


def test_idle_consumer_uses_hardly_any_processor_time(path: Path) -> None:
    with connect(path) as connection, connection.Consumer([queue()], on_message=print):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        before = time.process_time()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=2)
        assert time.process_time() - before < 0.02


def test_long_path_wakes_as_well(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with connect(deep / "broker.db", poll_seconds=30) as connection, connect(deep / "broker.db") as other:
        received: list[Any] = []
        with connection.Consumer([queue()], on_message=received.append, no_ack=True):
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.1)
            publish(other, 1)
            connection.drain_events(timeout=5)
        assert len(received) == 1


def test_dead_owners_leave_no_files(path: Path) -> None:
    process = start(WORKER, path, path.with_name("effects"), HERE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    stop(process)
    with connect(path) as connection:
        with connection.Consumer([queue()], callbacks=[print]):
            connection.connection.store.rescue()
        assert len(os.listdir(f"{path}-peers")) <= 2
    assert os.listdir(f"{path}-peers") == []


def test_connection_nobody_closed_gives_its_messages_back(path: Path) -> None:
    forgotten = connect(path)
    publish(forgotten, 1)
    assert queue()(forgotten.default_channel).get() is not None
    with connect(path) as connection:
        del forgotten
        wait_for(lambda: _collected(connection), seconds=10)


def _collected(connection: kombu.Connection) -> bool:
    import gc

    gc.collect()
    return connection.default_channel.queue_declare("q", passive=True).message_count == 1


def test_file_stays_small_after_a_flood(path: Path) -> None:
    with connect(path) as connection:
        for _ in range(300):
            publish(connection, "x" * 50_000)
        full = path.stat().st_size + Path(f"{path}-wal").stat().st_size
        assert connection.default_channel.queue_purge("q") == 300
        store = connection.connection.store
        for _ in range(20):
            store.tidy()
        store.database.read("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < full / 3


def test_random_operations_leave_a_sound_database(path: Path) -> None:
    random_ = random.Random(7)
    with connect(path) as first, connect(path) as second:
        expected = 0
        for _ in range(300):
            connection = random_.choice([first, second])
            bound = queue(random_.choice("ab"))(connection.default_channel)
            bound.declare()
            if random_.random() < 0.6:
                publish(connection, 1, bound.name, priority=random_.randrange(10))
                expected += 1
            elif (message := bound.get()) is not None:
                if random_.random() < 0.5:
                    message.ack()
                    expected -= 1
                else:
                    message.requeue()
        for connection in (first, second):
            connection.default_channel.flush()
        counts = [first.default_channel.queue_declare(name, passive=True).message_count for name in "ab"]
        assert sum(counts) == expected
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert check.execute("SELECT count(*) FROM message").fetchone() == (expected,)
    check.close()


def test_lease_lost_is_a_connection_error() -> None:
    from qbrokers.sqlite import Transport

    assert issubclass(LeaseLost, Transport.recoverable_connection_errors)
