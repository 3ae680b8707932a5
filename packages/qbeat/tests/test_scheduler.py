"""The scheduler in memory, on a real app with a clock that can be set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qbeat import ScheduleEntry, Scheduler, SchedulingError, crontab, schedule
from qbeat.entry_dict import EntryDict
from qbeat.errors import BrokerAwayError
from qbeat.schedulers import PersistentScheduler, load_scheduler
from qcore.errors import ImproperlyConfigured

Make = Callable[..., Any]


def scheduler_of(app: Any, entries: dict[str, Any], **options: Any) -> Scheduler:
    app.conf.beat_schedule = {
        name: fields if isinstance(fields, dict) else {"task": f"tasks.{name}", "schedule": fields}
        for name, fields in entries.items()
    }
    return Scheduler(app, **options)


def tick_all(scheduler: Scheduler) -> float:
    """Tick until there is something to wait for."""
    while (wait := scheduler.tick()) == 0:
        pass
    return wait


# -- ticking


def test_nothing_is_sent_before_the_first_interval(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30})
    assert tick_all(scheduler) == pytest.approx(30)
    assert app.names_sent() == []


def test_an_interval_is_sent_again_and_again(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30})
    tick_all(scheduler)
    for _ in range(3):
        app.advance(30)
        assert tick_all(scheduler) == pytest.approx(30)
        assert app.names_sent() == ["tasks.a"]
    assert scheduler.schedule["a"].total_run_count == 3


def test_runs_keep_their_grid_when_ticks_are_late(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30})
    tick_all(scheduler)
    for _ in range(4):
        app.advance(31)
        tick_all(scheduler)
    assert scheduler.schedule["a"].last_run_at == datetime(2024, 1, 1, 12, 2, tzinfo=UTC)
    assert len(app.names_sent()) == 4


def test_entries_of_several_intervals(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 10, "b": 15})
    tick_all(scheduler)
    sent = []
    for _ in range(6):
        app.advance(5)
        tick_all(scheduler)
        sent.append(sorted(app.names_sent()))
    assert sent == [[], ["tasks.a"], ["tasks.b"], ["tasks.a"], [], ["tasks.a", "tasks.b"]]


def test_crontabs_follow_the_zone_of_the_app(make_app: Make) -> None:
    app = make_app(timezone="Asia/Tokyo")
    scheduler = scheduler_of(app, {"a": crontab(hour=22, minute=0)})
    assert tick_all(scheduler) == 300
    app.advance(3600)  # 13:00 UTC
    tick_all(scheduler)
    assert app.names_sent() == ["tasks.a"]


def test_the_sleep_is_bounded(make_app: Make) -> None:
    app = make_app(beat_max_loop_interval=7)
    assert tick_all(scheduler_of(app, {"a": 30})) == 7
    assert tick_all(scheduler_of(app, {}, max_interval=3)) == 3
    assert tick_all(scheduler_of(make_app(), {"a": timedelta(days=36500)})) == 300


def test_many_entries_due_at_once_are_all_sent(app: Any) -> None:
    scheduler = scheduler_of(app, {f"e{n}": 30 for n in range(2500)})
    tick_all(scheduler)
    app.advance(30)
    tick_all(scheduler)
    assert len(set(app.names_sent())) == 2500


def test_missed_runs_are_made_up_for_once(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30, "b": crontab(minute="*")})
    tick_all(scheduler)
    app.advance(3600)
    tick_all(scheduler)
    assert sorted(app.names_sent()) == ["tasks.a", "tasks.b"]


def test_a_clocked_entry_is_sent_once(app: Any) -> None:
    from qbeat import clocked

    scheduler = scheduler_of(app, {"a": clocked(app.now() + timedelta(seconds=10))})
    assert tick_all(scheduler) == pytest.approx(10)
    app.advance(10)
    assert tick_all(scheduler) == 300
    app.advance(86400)
    tick_all(scheduler)
    assert app.names_sent() == ["tasks.a"]


def test_a_schedule_of_your_own_decides(app: Any) -> None:
    class Always(schedule):
        def is_due(self, last_run_at: datetime) -> Any:
            return True, 20

    scheduler = scheduler_of(app, {"a": Always()})
    assert tick_all(scheduler) == pytest.approx(20)
    assert app.names_sent() == ["tasks.a"]
    app.advance(20)
    assert tick_all(scheduler) == pytest.approx(20)
    assert app.names_sent() == ["tasks.a"]


def test_a_schedule_that_fails_stops_only_its_entry(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(schedule):
        def is_due(self, last_run_at: datetime) -> Any:
            raise ValueError("broken rule")

    scheduler = scheduler_of(app, {"bad": Broken(), "good": 30})
    tick_all(scheduler)
    app.advance(30)
    tick_all(scheduler)
    assert app.names_sent() == ["tasks.good"]
    assert "broken rule" in caplog.text
    assert "'bad'" in caplog.text


def test_a_schedule_that_answers_oddly_is_asked_later(app: Any) -> None:
    class Odd(schedule):
        def is_due(self, last_run_at: datetime) -> Any:
            return False, None

    assert tick_all(scheduler_of(app, {"a": Odd()})) == 300


# -- what is sent


def test_a_known_task_is_sent_with_arguments_and_options(app: Any) -> None:
    @app.task(name="tasks.known")
    def known(*args: Any, **kwargs: Any) -> None: ...

    seen: list[Any] = []

    def look(
        sender: Any = None, headers: Any = None, body: Any = None, routing_key: Any = None, **_: Any
    ) -> None:
        seen.append((sender, headers, body[:2], routing_key))

    from qcore.signals import before_task_publish

    entry = {
        "task": "tasks.known",
        "schedule": 30,
        "args": (1, 2),
        "kwargs": {"k": 3},
        "options": {"queue": "other", "headers": {"mine": "x"}, "expires": 60},
    }
    scheduler = scheduler_of(app, {"a": entry})
    tick_all(scheduler)
    app.advance(30)
    before_task_publish.connect(look)
    try:
        tick_all(scheduler)
    finally:
        before_task_publish.disconnect(look)
    ((sender, headers, (args, kwargs), routing_key),) = seen
    assert (sender, list(args), kwargs, routing_key) == ("tasks.known", [1, 2], {"k": 3}, "other")
    assert (headers["celery_beat_task"], headers["mine"]) == (True, "x")
    assert headers["expires"] is not None
    assert scheduler.schedule["a"].options["headers"] == {"mine": "x"}


def test_an_unknown_task_is_sent_by_name(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": {"task": "elsewhere.t", "schedule": 30, "args": (1,)}})
    tick_all(scheduler)
    app.advance(30)
    tick_all(scheduler)
    ((name, args, kwargs, options),) = app.sent
    assert (name, args, kwargs, options["headers"]) == ("elsewhere.t", (1,), {}, {"celery_beat_task": True})


def test_periodic_tasks_of_signatures(make_app: Make) -> None:
    app = make_app()

    @app.on_after_configure.connect
    def set_up(sender: Any, **kwargs: Any) -> None:
        sender.add_periodic_task(10.0, hello.s("hello"), name="add every 10")
        sender.add_periodic_task(30.0, hello.s("world"), expires=10)
        sender.add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), hello.s("Happy Mondays!"))

    @app.task(name="tasks.hello")
    def hello(arg: str) -> None: ...

    app.finalize()
    assert app.conf.result_expires  # configures the app
    app.finalize()
    scheduler = Scheduler(app)
    assert len(scheduler.schedule) == 3
    assert scheduler.schedule["add every 10"].args == ("hello",)
    assert sorted(e.options.get("expires", 0) for e in scheduler.schedule.values()) == [0, 0, 10]


def test_apply_async_sends_now_and_counts(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30})
    app.advance(5)
    assert scheduler.apply_async(scheduler.schedule["a"]).id
    assert app.names_sent() == ["tasks.a"]
    assert scheduler.schedule["a"].total_run_count == 1
    scheduler.apply_async(scheduler.schedule["a"], advance=False)
    assert scheduler.schedule["a"].total_run_count == 1


def test_an_entry_that_cannot_be_sent_is_logged_and_moves_on(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = scheduler_of(app, {"a": {"task": "t", "schedule": 30, "args": (object(),)}, "b": 30})
    tick_all(scheduler)
    app.advance(30)
    assert tick_all(scheduler) == pytest.approx(30)
    assert app.names_sent() == ["tasks.b"]
    assert "cannot send the periodic task a" in caplog.text
    with pytest.raises(SchedulingError):
        scheduler.apply_async(scheduler.schedule["a"])


# -- the broker goes away


def test_nothing_is_lost_or_doubled_while_the_broker_is_away(
    app: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = [1000.0]
    monkeypatch.setattr("qbeat.schedulers.base.time.monotonic", lambda: monotonic[0])

    def pass_time(seconds: float) -> None:
        app.advance(seconds)
        monotonic[0] += seconds

    scheduler = scheduler_of(app, {"a": 30, "b": 30, "c": 45})
    tick_all(scheduler)
    pass_time(30)
    app.away = True
    with caplog.at_level(logging.INFO):
        assert tick_all(scheduler) == 1.0
        tries = app.tries
        assert tick_all(scheduler) == 1.0, "no further try before the second is over"
        assert app.tries == tries == 1, "one try tells that the broker is away"
        pass_time(1)
        assert tick_all(scheduler) == 2.0
        pass_time(20)
        tick_all(scheduler)
        assert scheduler.schedule["a"].total_run_count == 0
        app.away = False
        pass_time(30)
        tick_all(scheduler)
    assert sorted(app.names_sent()) == ["tasks.a", "tasks.b", "tasks.c"]
    assert "nothing is lost, trying again" in caplog.text
    assert "The broker is back" in caplog.text
    pass_time(9)
    tick_all(scheduler)
    assert sorted(app.names_sent()) == ["tasks.a", "tasks.b", "tasks.c"], "back on their grid at 12:01:30"


def test_all_tries_of_a_run_have_one_id_and_runs_have_different_ones(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30})
    entry = scheduler.schedule["a"]
    app.away = True
    with pytest.raises(BrokerAwayError):
        scheduler.apply_entry(entry)
    pending = dict(scheduler._attempt_ids)
    app.away = False
    scheduler.apply_entry(entry)
    scheduler.apply_entry(entry)
    ids = [options["task_id"] for *_, options in app.sent]
    assert ids[0] == pending["a"]
    assert ids[0] != ids[1]


# -- the clock is set


def test_a_clock_set_forward_sends_each_missed_entry_once(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = scheduler_of(app, {"a": 30})
    tick_all(scheduler)
    app.advance(86400)
    tick_all(scheduler)
    assert app.names_sent() == ["tasks.a"]
    assert "clock was set" in caplog.text


def test_a_clock_set_back_does_not_stop_the_entries(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = scheduler_of(app, {"a": 30, "b": crontab(minute="*")})
    tick_all(scheduler)
    app.advance(-7 * 86400)
    assert tick_all(scheduler) <= 60
    app.advance(60)
    tick_all(scheduler)
    assert sorted(app.names_sent()) == ["tasks.a", "tasks.b"]
    assert "yet to come" in caplog.text


def test_a_clock_set_back_a_little_sends_no_crontab_twice(app: Any) -> None:
    scheduler = scheduler_of(app, {"b": crontab(minute="*")})
    tick_all(scheduler)
    app.advance(60)
    tick_all(scheduler)
    app.advance(-20)
    tick_all(scheduler)
    app.advance(21)
    tick_all(scheduler)
    assert app.names_sent() == ["tasks.b"]


# -- changes of the schedule


def test_entries_can_be_added_replaced_and_removed_at_run_time(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30})
    tick_all(scheduler)
    scheduler.add(name="b", task="tasks.b", schedule=10)
    assert tick_all(scheduler) == pytest.approx(10)
    scheduler.update_from_dict({"b": {"task": "tasks.b", "schedule": 5}})
    assert tick_all(scheduler) == pytest.approx(5)
    del scheduler.schedule["b"]
    assert tick_all(scheduler) == pytest.approx(30)
    app.advance(30)
    tick_all(scheduler)
    assert app.names_sent() == ["tasks.a"]


def test_merge_keeps_runs_of_entries_that_stay(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30, "b": 30})
    tick_all(scheduler)
    app.advance(30)
    tick_all(scheduler)
    run = scheduler.schedule["a"].last_run_at
    app.advance(10)
    scheduler.merge_inplace(
        {"a": {"task": "tasks.other", "schedule": 60}, "c": {"task": "tasks.c", "schedule": 20}}
    )
    assert set(scheduler.schedule) == {"a", "c"}
    entry = scheduler.schedule["a"]
    assert (entry.task, entry.last_run_at, entry.total_run_count) == ("tasks.other", run, 1)
    assert tick_all(scheduler) == pytest.approx(20)
    app.advance(50)
    tick_all(scheduler)
    assert sorted(app.names_sent()[2:]) == ["tasks.c", "tasks.other"]


def test_a_mapping_of_your_own_is_watched_too(app: Any) -> None:
    mine: dict[str, ScheduleEntry] = {}
    scheduler = scheduler_of(app, {"a": 30}, schedule=mine)
    tick_all(scheduler)
    mine["b"] = ScheduleEntry(name="b", task="tasks.b", schedule=10, app=app)
    assert tick_all(scheduler) == pytest.approx(10)
    app.advance(10)
    tick_all(scheduler)
    assert app.names_sent() == ["tasks.b"]
    assert mine["b"].total_run_count == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda d, e: d.__setitem__("b", e),
        lambda d, e: d.__delitem__("a"),
        lambda d, e: d.pop("a"),
        lambda d, e: d.popitem(),
        lambda d, e: d.update(b=e),
        lambda d, e: d.setdefault("b", e),
        lambda d, e: d.clear(),
        lambda d, e: d.__ior__({"b": e}),
    ],
)
def test_every_change_of_an_entry_dict_counts(change: Any) -> None:
    entry = ScheduleEntry(name="a", task="t", schedule=1)
    entries = EntryDict({"a": entry})
    before = entries.version
    entries.move_on("a", entry)
    assert entries.version == before
    change(entries, entry)
    assert entries.version > before


def test_lazy_leaves_the_schedule_empty(app: Any) -> None:
    assert scheduler_of(app, {"a": 30}, lazy=True).schedule == {}


def test_a_bad_entry_is_named_at_the_start(app: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="'a'"):
        scheduler_of(app, {"a": {"task": "t"}})


def test_cleanup_is_installed_for_stores_that_need_it(app: Any) -> None:
    class Store:
        supports_autoexpire = False

    scheduler = scheduler_of(app, {}, lazy=True)
    assert "celery.backend_cleanup" not in scheduler_of(app, {}).schedule
    app._backend = type("S", (Store,), {"close": lambda self: None})()
    scheduler.install_default_entries(scheduler.schedule)
    entry = scheduler.schedule["celery.backend_cleanup"]
    assert (entry.task, entry.schedule, entry.options) == (
        "celery.backend_cleanup",
        crontab(0, 4),
        {"expires": 43200},
    )


# -- syncing


def test_sync_is_due_by_time_and_by_count(app: Any) -> None:
    scheduler = scheduler_of(app, {"a": 30}, sync_every_tasks=2)
    assert scheduler.should_sync()
    scheduler.do_sync()
    assert not scheduler.should_sync()
    for expected in (False, True):
        scheduler.apply_async(scheduler.schedule["a"])
        assert scheduler.should_sync() is expected
    scheduler.do_sync()
    scheduler.sync_every = -1
    assert scheduler.should_sync()


# -- loading


def test_schedulers_load_by_name_and_path() -> None:
    assert load_scheduler("persistent") is PersistentScheduler
    assert load_scheduler("memory") is Scheduler
    assert load_scheduler("qbeat.schedulers:PersistentScheduler") is PersistentScheduler
    assert load_scheduler("qbeat.schedulers.PersistentScheduler") is PersistentScheduler
    assert load_scheduler(Scheduler) is Scheduler


@pytest.mark.parametrize("name", ["nowhere:Scheduler", "qbeat.schedulers:Missing"])
def test_a_scheduler_that_is_not_there_says_what_there_is(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="persistent"):
        load_scheduler(name)
