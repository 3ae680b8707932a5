"""The service: ticking in real time, stopping, standing by, and beat as a program."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from qbeat import EmbeddedService, PersistentScheduler, Scheduler, Service
from qbeat.app import Beat, make_beat
from qbeat.control import BeatNode, node_name
from qbeat.embedded import ProcessBeat, ThreadBeat
from qbeat.leader import FileLeader
from qbeat.schedulers import StateFile
from qbeat.wakeup import Wakeup
from qcore.errors import ImproperlyConfigured
from qcore.signals import beat_embedded_init, beat_init

Make = Callable[..., Any]
LONG = 20.0


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        threading.Event().wait(0.01)


@pytest.fixture
def real_app(make_app: Make) -> Any:
    app = make_app(None)
    app.conf.beat_schedule = {"a": {"task": "tasks.a", "schedule": 0.05}}
    return app


def run(service: Service) -> threading.Thread:
    thread = threading.Thread(target=service.start)
    thread.start()
    return thread


# -- waking


def test_wakeup_ends_a_wait() -> None:
    wakeup = Wakeup()
    assert wakeup.wait(0.01) is False
    threading.Timer(0.05, wakeup.set).start()
    started = time.monotonic()
    assert wakeup.wait(LONG) is True
    assert time.monotonic() - started < LONG / 2
    assert wakeup.wait(LONG) is True
    wakeup.set()


# -- the service


def test_tasks_are_sent_until_stop(real_app: Any) -> None:
    service = Service(real_app)
    thread = run(service)
    wait_until(lambda: len(real_app.sent) >= 3)
    service.stop(wait=True)
    thread.join(LONG)
    assert not thread.is_alive()
    file = StateFile(real_app.conf.beat_schedule_filename)
    assert file.runs()["a"].total_run_count == len(real_app.sent)
    file.close()


def test_stop_before_start(real_app: Any) -> None:
    service = Service(real_app, scheduler_cls=Scheduler)
    service.stop()
    service.start()
    assert real_app.sent == []


def test_signals_tell_of_the_start(real_app: Any) -> None:
    seen: list[Any] = []

    def on_init(sender: Any = None, **_: Any) -> None:
        seen.append(("init", sender))

    def on_embedded(sender: Any = None, **_: Any) -> None:
        seen.append(("embedded", sender))

    service = Service(real_app, scheduler_cls="memory")
    service.stop()
    beat_init.connect(on_init)
    beat_embedded_init.connect(on_embedded)
    try:
        service.start()
        service.start(embedded_process=True)
    finally:
        beat_init.disconnect(on_init)
        beat_embedded_init.disconnect(on_embedded)
    assert seen == [("init", service), ("init", service), ("embedded", service)]


def test_an_error_that_ends_it_is_raised(real_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Scheduler):
        def tick(self) -> float:
            raise ValueError("out of order")

    service = Service(real_app, scheduler_cls=Failing)
    with pytest.raises(ValueError, match="out of order"):
        service.start()
    assert "stopped by an error" in caplog.text


def test_options_reach_the_scheduler(real_app: Any, tmp_path: Path) -> None:
    service = Service(real_app, max_interval=7, schedule_filename=str(tmp_path / "x"))
    assert isinstance(service.scheduler, PersistentScheduler)
    assert service.scheduler.max_interval == 7
    assert service.scheduler.schedule_filename == str(tmp_path / "x")
    service.sync()
    assert service.get_scheduler(lazy=True).schedule == {}


def test_the_setting_names_the_scheduler(make_app: Make) -> None:
    assert Service(make_app(beat_scheduler="memory")).scheduler_cls is Scheduler
    assert Service(make_app()).scheduler_cls is PersistentScheduler


# -- standing by


def test_two_beats_with_one_file_send_once(make_app: Make, caplog: pytest.LogCaptureFixture) -> None:
    apps = [make_app(None), make_app(None)]
    for app in apps:
        app.conf.beat_schedule = {"a": {"task": "tasks.a", "schedule": 0.1}}
    first, second = (Service(app) for app in apps)
    for service in (first, second):
        service.leader.retry_seconds = 0.02  # type: ignore[union-attr]
    with caplog.at_level(logging.WARNING):
        threads = [run(first)]
        wait_until(lambda: len(apps[0].sent) >= 2)
        threads.append(run(second))
        wait_until(lambda: "standing by" in caplog.text)
        wait_until(lambda: len(apps[0].sent) >= 5)
    assert apps[1].sent == []
    assert f"process {os.getpid()}" in caplog.text
    first.stop(wait=True)
    wait_until(lambda: len(apps[1].sent) >= 2)
    second.stop(wait=True)
    for thread in threads:
        thread.join(LONG)
    file = StateFile(apps[0].conf.beat_schedule_filename)
    assert file.runs()["a"].total_run_count == len(apps[0].sent) + len(apps[1].sent)
    file.close()


def test_file_leader(tmp_path: Path) -> None:
    one, two = FileLeader(tmp_path / "lock"), FileLeader(tmp_path / "lock")
    assert one.acquire()
    assert one.acquire()
    assert not two.acquire()
    assert str(os.getpid()) in two.describe()
    one.release()
    one.release()
    assert two.acquire()
    two.release()
    with pytest.raises(ImproperlyConfigured, match="beat_schedule_filename"):
        FileLeader(tmp_path / "missing" / "lock").acquire()


def test_a_lost_lead_lets_go_of_the_schedule(real_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Fickle:
        retry_seconds = 0.01

        def __init__(self) -> None:
            self.leads = True

        def acquire(self) -> bool:
            return self.leads

        def holds(self) -> bool:
            return self.leads

        def release(self) -> None:
            self.leads = False

        def describe(self) -> str:
            return "somebody else"

    leader = Fickle()
    service = Service(real_app, scheduler_cls=Scheduler, leader=leader)
    thread = run(service)
    wait_until(lambda: real_app.sent)
    leader.leads = False
    wait_until(lambda: service.last_tick is None)
    assert "lost the lead to somebody else" in caplog.text
    count = len(real_app.sent)
    leader.leads = True
    wait_until(lambda: len(real_app.sent) > count)
    service.stop(wait=True)
    thread.join(LONG)


# -- embedded


def test_in_a_thread(real_app: Any) -> None:
    seen: list[Any] = []

    def on_embedded(sender: Any = None, **_: Any) -> None:
        seen.append(sender)

    beat_embedded_init.connect(on_embedded)
    beat = EmbeddedService(real_app, thread=True, scheduler_cls=Scheduler)
    try:
        assert isinstance(beat, ThreadBeat)
        beat.start()
        wait_until(lambda: real_app.sent)
        beat.stop()
    finally:
        beat_embedded_init.disconnect(on_embedded)
    assert seen == [beat.service]
    count = len(real_app.sent)
    assert not [thread for thread in threading.enumerate() if thread.name == "Beat"]
    assert len(real_app.sent) == count


def test_in_a_process(real_app: Any) -> None:
    beat = EmbeddedService(real_app)
    assert isinstance(beat, ProcessBeat)
    beat.start()
    path = Path(real_app.conf.beat_schedule_filename)

    def runs() -> int:
        if not path.exists():
            return 0
        file = sqlite_reader(path)
        return file.get("a", 0)

    wait_until(lambda: runs() >= 2)
    beat.stop()
    assert beat._process.exitcode == 0
    assert real_app.sent == [], "it ran in the child"


def sqlite_reader(path: Path) -> dict[str, int]:
    """Look into the file without taking part in its upkeep."""
    import sqlite3

    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return dict(database.execute("SELECT name, total_run_count FROM runs"))
    except sqlite3.OperationalError:
        return {}
    finally:
        database.close()


def test_beside_a_worker_it_has_a_node_name_of_its_own(real_app: Any) -> None:
    beat = Beat(real_app, scheduler="memory", hostname="q@box", max_interval=3).embedded(thread=True)
    assert isinstance(beat, ThreadBeat)
    assert node_name(beat.service.hostname) == "qbeat@box"
    assert (beat.service.scheduler_cls, beat.service.max_interval) == (Scheduler, 3)
    assert isinstance(Beat(real_app).embedded(), ProcessBeat)


def test_stopping_what_was_never_started(real_app: Any) -> None:
    for thread in (True, False):
        EmbeddedService(real_app, thread=thread, scheduler_cls=Scheduler).stop()


# -- beat as a program


def test_the_app_finds_it_by_entry_point(app: Any) -> None:
    (point,) = entry_points(group="qcore.extensions", name="Beat")
    assert point.load() is make_beat
    beat = app.Beat(max_interval=3, schedule="x", scheduler="memory")
    assert isinstance(beat, Beat)
    assert (beat.app, beat.max_interval) == (app, 3)


PROGRAM = """
    import sys
    from qcore import App
    app = App("program", broker="memory://", beat_schedule_filename=sys.argv[1])
    app.conf.beat_schedule = {"a": {"task": "t", "schedule": 0.05}}
    from qcore.signals import after_task_publish

    @after_task_publish.connect
    def sent(sender=None, **kwargs):
        print("sent", flush=True)

    app.Beat().run()
    print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_in_good_order(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sent\n"
    process.send_signal(number)
    output = process.stdout.read()
    process.stdout.close()
    assert process.wait(LONG) == 0
    assert output.endswith("ended\n")


def test_two_programs_send_once_and_one_takes_over_when_the_other_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "s")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "sent\n"
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    first.kill()
    sent_by_first = 1 + len(first.stdout.read().split())
    first.wait(LONG)
    first.stdout.close()
    assert second.stdout.readline() == "sent\n"
    second.terminate()
    sent_by_second = 1 + second.stdout.read().count("sent")
    second.stdout.close()
    assert second.wait(LONG) == 0
    total = sqlite_reader(tmp_path / "s")["a"]
    assert sent_by_first + sent_by_second - 1 <= total <= sent_by_first + sent_by_second


# -- remote control


def test_node_names() -> None:
    assert node_name("box").startswith("qbeat@box")
    assert node_name("me@box") == "me@box"
    assert node_name().startswith("qbeat@")


def test_beat_answers_ping_and_nothing_else(make_app: Make) -> None:
    app = make_app(None, beat_enable_remote_control=True, control_exchange=f"c{time.monotonic_ns()}")
    service = Service(app, scheduler_cls=Scheduler, hostname="me@box")
    thread = run(service)
    try:
        wait_until(lambda: app.control.ping(["me@box"], timeout=2))
        assert app.control.ping(["me@box"], timeout=10) == [{"me@box": {"ok": "pong"}}]
        assert app.control.inspect("me@box", timeout=1.5).active() is None
    finally:
        service.stop(wait=True)
        thread.join(LONG)


def test_beat_says_when_its_broker_has_no_remote_control(
    make_app: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(None)
    app.conf.broker_url = f"sqla+sqlite:///{tmp_path}/broker.db"
    node = BeatNode(Service(app, scheduler_cls=Scheduler))

    node.start()

    assert "Remote control is off: the broker sqla+sqlite" in caplog.text
    assert node._thread is None


def test_a_beat_that_stalls_keeps_silent(make_app: Make) -> None:
    app = make_app(None)
    service = Service(app, scheduler_cls=Scheduler)
    node = BeatNode(service)
    assert not node.is_stalled(), "standing by"
    service.last_tick = time.monotonic() - 599
    assert node.max_tick_age() == 600
    assert not node.is_stalled()
    service.last_tick = time.monotonic() - 601
    assert node.is_stalled()
    app.conf.beat_remote_control_max_tick_age = 0
    assert not node.is_stalled()
    app.conf.beat_remote_control_max_tick_age = 700
    assert not node.is_stalled()
    service.max_interval = 5
    app.conf.beat_remote_control_max_tick_age = None
    assert node.max_tick_age() == 60
