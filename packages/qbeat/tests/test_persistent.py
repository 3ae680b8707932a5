"""The persistent scheduler and its file, through crashes, damage and changes of the settings."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from qbeat import PersistentScheduler, crontab
from qbeat.schedulers import SavedRun, StateFile
from qcore.errors import ImproperlyConfigured

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
Make = Callable[..., Any]


def begin(make_app: Make, entries: dict[str, Any], clock_at: datetime = NOON, **settings: Any) -> Any:
    app = make_app(clock_at, **settings)
    app.conf.beat_schedule = {
        name: {"task": f"tasks.{name}", "schedule": when} for name, when in entries.items()
    }
    return PersistentScheduler(app)


def tick_all(scheduler: PersistentScheduler) -> float:
    while (wait := scheduler.tick()) == 0:
        pass
    return wait


# -- the file


def test_runs_and_facts_are_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s")
    file.save("a", SavedRun(NOON, 3))
    file.save("a", SavedRun(NOON + timedelta(1), 4))
    file.set_fact("zone", "UTC")
    file.checkpoint()
    file.close()
    again = StateFile(tmp_path / "s")
    assert again.runs() == {"a": SavedRun(NOON + timedelta(1), 4)}
    assert (again.fact("zone"), again.fact("nothing")) == ("UTC", None)
    again.replace([("b", SavedRun(NOON, 1))])
    assert set(again.runs()) == {"b"}
    again.close()


def test_a_replacement_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s")
    file.save("a", SavedRun(NOON, 3))
    with pytest.raises(sqlite3.IntegrityError):
        file.replace([("b", SavedRun(NOON, 1)), ("b", SavedRun(NOON, 2))])
    assert set(file.runs()) == {"a"}
    file.close()


@pytest.mark.parametrize(
    "content",
    [b"not a data base at all", b"SQLite format 3\x00" + b"\xff" * 5000, os.urandom(4096), b"\x00" * 100],
)
def test_a_damaged_file_is_put_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    file = StateFile(path)
    file.save("a", SavedRun(NOON, 1))
    file.close()
    (aside,) = [p for p in tmp_path.iterdir() if ".unreadable-" in p.name]
    assert aside.read_bytes() == content
    assert f"kept as {aside.name}" in caplog.text
    again = StateFile(path)
    assert set(again.runs()) == {"a"}
    again.close()


def test_a_truncated_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "s"
    file = StateFile(path)
    file.replace((f"entry {n}", SavedRun(NOON, n)) for n in range(2000))
    file.close()
    path.write_bytes(path.read_bytes()[:20_000])
    again = StateFile(path)
    assert again.runs() == {}
    again.close()


def test_the_data_base_of_another_program_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "s"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE Dict (key, value)")
    other.commit()
    other.close()
    StateFile(path).close()
    (aside,) = [p for p in tmp_path.iterdir() if ".unreadable-" in p.name]
    kept = sqlite3.connect(aside)
    assert kept.execute("SELECT count(*) FROM Dict").fetchone() == (0,)
    kept.close()


def test_an_empty_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    StateFile(tmp_path / "s").close()
    assert not [p for p in tmp_path.iterdir() if ".unreadable-" in p.name]


@pytest.mark.parametrize("place", ["missing/s", "."])
def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="beat_schedule_filename"):
        StateFile(tmp_path / place)


def test_a_run_that_cannot_be_understood_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = StateFile(tmp_path / "s")
    file.save("good", SavedRun(NOON, 1))
    file._database.execute("INSERT INTO runs VALUES ('bad', 'yesterday', 1)")
    assert set(file.runs()) == {"good"}
    assert "'bad'" in caplog.text
    file.close()


# -- the scheduler


def test_the_last_run_survives_a_restart(make_app: Make) -> None:
    scheduler = begin(make_app, {"a": timedelta(hours=1)})
    tick_all(scheduler)
    scheduler.app.advance(3600)
    tick_all(scheduler)
    assert scheduler.app.names_sent() == ["tasks.a"]
    scheduler.close()
    again = begin(make_app, {"a": timedelta(hours=1)}, NOON + timedelta(minutes=90))
    assert again.schedule["a"].last_run_at == NOON + timedelta(hours=1)
    assert again.schedule["a"].total_run_count == 1
    tick_all(again)
    assert again.app.names_sent() == []
    again.app.advance(1800)
    tick_all(again)
    assert again.app.names_sent() == ["tasks.a"]
    again.close()


def test_a_run_is_kept_without_sync_or_close(make_app: Make) -> None:
    scheduler = begin(make_app, {"a": 30})
    tick_all(scheduler)
    scheduler.app.advance(30)
    tick_all(scheduler)
    reader = StateFile(scheduler.schedule_filename)
    assert reader.runs()["a"] == SavedRun(NOON + timedelta(seconds=30), 1)
    reader.close()
    scheduler.close()


def test_what_was_missed_while_beat_was_down_is_sent_once(make_app: Make) -> None:
    begin(make_app, {"a": 60, "b": crontab(minute="*/5")}).close()
    again = begin(make_app, {"a": 60, "b": crontab(minute="*/5")}, NOON + timedelta(hours=5, seconds=1))
    tick_all(again)
    assert sorted(again.app.names_sent()) == ["tasks.a", "tasks.b"]
    again.close()


def test_a_restart_now_and_then_does_not_starve_a_long_interval(make_app: Make) -> None:
    for hour in range(24):
        scheduler = begin(make_app, {"a": timedelta(days=1)}, NOON + timedelta(hours=hour))
        tick_all(scheduler)
        assert scheduler.app.names_sent() == []
        scheduler.close()
    scheduler = begin(make_app, {"a": timedelta(days=1)}, NOON + timedelta(hours=24))
    tick_all(scheduler)
    assert scheduler.app.names_sent() == ["tasks.a"]
    scheduler.close()


def test_entries_follow_the_settings(make_app: Make) -> None:
    scheduler = begin(make_app, {"a": 60, "b": 60})
    tick_all(scheduler)
    scheduler.app.advance(60)
    tick_all(scheduler)
    scheduler.close()
    later = NOON + timedelta(seconds=90)
    again = begin(make_app, {"b": 120, "c": 60}, later)
    assert {name: entry.last_run_at for name, entry in again.schedule.items()} == {
        "b": NOON + timedelta(seconds=60),
        "c": later,
    }
    assert set(again._store.runs()) == {"b", "c"}
    again.close()


@pytest.mark.parametrize("change", [{"timezone": "Asia/Tokyo"}, {"enable_utc": False, "timezone": "UTC"}])
def test_another_zone_resets_the_schedule(
    make_app: Make, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    begin(make_app, {"a": 60}).close()
    later = NOON + timedelta(days=1)
    again = begin(make_app, {"a": 60}, later, **change)
    assert again.schedule["a"].last_run_at == later
    assert "the schedule is reset" in caplog.text
    again.close()
    caplog.clear()
    begin(make_app, {"a": 60}, later, **change).close()
    assert caplog.text == ""


def test_a_file_that_cannot_be_written_does_not_stop_beat(
    make_app: Make, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = begin(make_app, {"a": 30})
    tick_all(scheduler)
    scheduler._store._database.execute("PRAGMA query_only = ON")
    for _ in range(2):
        scheduler.app.advance(30)
        tick_all(scheduler)
    scheduler.sync()
    assert scheduler.app.names_sent() == ["tasks.a"] * 2
    assert caplog.text.count("Cannot write the schedule file") == 1
    scheduler._store._database.execute("PRAGMA query_only = OFF")
    scheduler.sync()
    assert scheduler._store.runs()["a"].total_run_count == 2
    scheduler.close()


def test_lazy_opens_no_file(make_app: Make, tmp_path: Path) -> None:
    PersistentScheduler(make_app(), lazy=True).close()
    assert list(tmp_path.iterdir()) == []


def test_info_names_the_file(make_app: Make, tmp_path: Path) -> None:
    scheduler = PersistentScheduler(make_app(), schedule_filename=str(tmp_path / "mine"))
    assert scheduler.info == f"    . db -> {tmp_path / 'mine'}"
    assert (tmp_path / "mine").exists()
    scheduler.close()


WRITER = """
    import sys
    from datetime import UTC, datetime
    from qbeat.schedulers.state_file import SavedRun, StateFile

    file = StateFile(sys.argv[1])
    count = file.runs().get("a", SavedRun(None, 0)).total_run_count
    while True:
        count += 1
        file.save("a", SavedRun(datetime.now(UTC), count))
        file.save("b", SavedRun(datetime.now(UTC), count))
        if count % 3 == 0:
            file.checkpoint()
        print(count, flush=True)
"""


def test_a_killed_process_leaves_every_run_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for round_ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        told = 0
        for _ in range(20 + 7 * round_):
            told = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        told = max([told, *map(int, rest[:-1])])
        file = StateFile(path)
        runs = file.runs()
        file.close()
        assert runs["a"].total_run_count >= told
        assert runs["b"].total_run_count >= told
    assert not [p for p in tmp_path.iterdir() if ".unreadable-" in p.name]
