"""What a broker cannot do is refused at the call, and never in the way of work that has begun."""

import queue
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kombu import Exchange, Queue

from qbrokers.capabilities import DECLARED, YES, Capabilities, Redelivery
from qcore import App, chord
from qcore.errors import ImproperlyConfigured, UnsupportedByBroker
from qcore.events import EventDispatcher
from qcore.queues import Broadcast
from qcore.refusal import Gate, following
from qcore.testing.inline import InlineWorker

SQLA = "sqla+sqlite:///{path}/broker.db"
ALL_TYPES = frozenset({"direct", "topic", "fanout", "headers"})


@pytest.fixture
def make(tmp_path):
    apps = []

    def make(url="memory://", **settings):
        app = App(
            "t",
            broker=url.format(path=tmp_path),
            backend="cache+memory://",
            set_as_current=False,
            task_default_queue=f"refusal-{tmp_path.name}",
            **settings,
        )
        app.task(name="t.add")(lambda x=0: x)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


def waiting(app):
    """Messages in the default queue."""
    with app.connection_for_read() as connection:
        return app.amqp.default_queue(connection.default_channel).queue_declare().message_count


def files(path: Path, **more):
    for name in ("in", "processed", "control"):
        (path / name).mkdir(exist_ok=True)
    return {
        "broker_transport_options": {
            "data_folder_in": str(path / "in"),
            "data_folder_out": str(path / "in"),
            "processed_folder": str(path / "processed"),
            "control_folder": str(path / "control"),
        },
        **more,
    }


# --- priorities -------------------------------------------------------------------------------------


def test_a_priority_is_refused_before_anything_is_sent(make):
    app = make()

    with pytest.raises(UnsupportedByBroker) as caught:
        app.tasks["t.add"].apply_async(priority=5)

    assert isinstance(caught.value, ImproperlyConfigured)
    assert str(caught.value).startswith("the broker memory://localhost// has no priorities, so priority=5")
    assert "leave priority" in caught.value.advice
    assert waiting(app) == 0


def test_files_have_no_priorities_either(make, tmp_path):
    app = make("filesystem://", **files(tmp_path))

    with pytest.raises(UnsupportedByBroker, match="has no priorities"):
        app.tasks["t.add"].apply_async(priority=1)


def test_the_lowest_priority_always_passes(make):
    app = make(task_default_priority=0)
    app.tasks["t.add"].apply_async(priority=0)
    app.tasks["t.add"].delay()

    assert waiting(app) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"task_default_priority": 3},
        {"task_routes": {"t.add": {"priority": 3}}},
        {"task_annotations": {"t.add": {"priority": 3}}},
    ],
)
def test_a_priority_from_the_settings_is_refused_as_well(make, settings):
    with pytest.raises(UnsupportedByBroker, match="priority=3"):
        make(**settings).tasks["t.add"].delay()


def test_the_priority_of_a_task_is_refused(make):
    app = make()
    task = app.task(name="t.urgent", priority=9)(lambda: None)

    with pytest.raises(UnsupportedByBroker, match="priority=9"):
        task.delay()


def test_a_queue_declared_for_priorities_is_refused_at_each_call(make):
    app = make(task_queue_max_priority=10, task_queues=[Queue("a")])

    for _ in range(2):
        with pytest.raises(UnsupportedByBroker, match="'a' is declared with x-max-priority=10"):
            app.tasks["t.add"].apply_async(queue="a")


def test_a_queue_that_is_declared_anew_is_looked_at_again(make):
    app = make()
    app.tasks["t.add"].apply_async(queue="late")
    app.amqp.queues.add(Queue("late", Exchange("late"), "late", max_priority=4))

    with pytest.raises(UnsupportedByBroker, match="x-max-priority=4"):
        app.tasks["t.add"].apply_async(queue="late")


def test_a_broker_that_has_them_takes_priorities(make, tmp_path):
    app = make("sqlite:///{path}/q.db", task_queue_max_priority=10)
    app.tasks["t.add"].apply_async(priority=5)

    assert waiting(app) == 1


def test_the_broker_of_a_connection_of_ones_own_decides(make):
    able, unable = make("sqlite:///{path}/q.db"), make()

    with able.connection_for_write() as connection:
        unable.tasks["t.add"].apply_async(priority=5, connection=connection)
    with unable.connection_for_write() as connection, pytest.raises(UnsupportedByBroker):
        able.tasks["t.add"].apply_async(priority=5, connection=connection)


# --- what follows from a task -----------------------------------------------------------------------


def test_a_task_with_a_priority_runs_and_so_does_what_follows(make):
    app = make(task_inherit_parent_priority=True)
    ran, done = [], threading.Semaphore(0)

    @app.task(name="t.first", bind=True, default_retry_delay=0, max_retries=1)
    def first(self):
        ran.append("first")
        if not self.request.retries:
            raise self.retry()
        called.delay()

    @app.task(name="t.called")
    def called():
        ran.append("called")
        done.release()

    @app.task(name="t.next")
    def next_(_):
        ran.append("next")
        done.release()

    with following():  # as Celery's clients send it
        first.apply_async(priority=7, chain=[next_.s().set(priority=3)])
    with InlineWorker(app):
        assert done.acquire(timeout=20)
        assert done.acquire(timeout=20)

    assert sorted(ran) == ["called", "first", "first", "next"]


def test_what_follows_from_a_task_is_warned_of_once(make, caplog):
    app = make()
    task, done = app.tasks["t.add"], threading.Event()

    @app.task(name="t.caller")
    def caller():
        for _ in range(3):
            task.apply_async(priority=5)
        done.set()

    caller.delay()
    with InlineWorker(app):
        assert done.wait(20)

    assert caplog.text.count("It is sent all the same, as it follows from a task") == 1
    assert "priority=5" in caplog.text


@pytest.mark.parametrize("name", ["t.fails", "t.nosuch"])
def test_an_errback_with_a_priority_is_sent(make, name):
    app, done = make(), threading.Event()

    @app.task(name="t.fails")
    def fails():
        raise KeyError

    @app.task(name="t.errback")
    def errback(_):
        done.set()

    app.send_task(name, link_error=errback.s().set(priority=5))
    with InlineWorker(app):
        assert done.wait(20)


def test_a_chord_whose_body_has_a_priority_ends(make):
    app, totals = make(), queue.Queue()

    @app.task(name="t.total")
    def total(values):
        totals.put(sum(values))

    add = app.tasks["t.add"]
    with InlineWorker(app):
        chord([add.s(1), add.s(2)], total.s().set(priority=5), app=app).apply_async()
        assert totals.get(timeout=20) == 3


def test_a_task_called_as_a_function_is_a_client(make):
    app = make()

    @app.task(name="t.caller")
    def caller():
        app.tasks["t.add"].apply_async(priority=5)

    with pytest.raises(UnsupportedByBroker):
        caller()


# --- RabbitMQ ---------------------------------------------------------------------------------------


@pytest.fixture
def rabbitmq():
    can = Capabilities(ALL_TYPES, further_types=True, broadcast=True, priorities=DECLARED, delays=True)
    return Gate(can, lambda: "amqp://guest:**@localhost//")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "no effect in the queue 'q', declared without x-max-priority: set task_queue_max_priority"),
        ({"x-queue-type": "quorum"}, "little effect in the quorum queue 'q'"),
        ({"x-queue-type": "stream"}, "no effect in the stream 'q'"),
    ],
)
def test_a_priority_in_a_queue_without_them_is_told_once(rabbitmq, caplog, arguments, said):
    queue = Queue("q", Exchange("q"), "q", queue_arguments=arguments)
    rabbitmq.check(queue, None, 0, None)
    assert caplog.text == ""

    for priority in (5, 6):
        rabbitmq.check(queue, None, priority, None)

    assert caplog.text.count("this is said once") == 1
    assert said in caplog.text


@pytest.mark.parametrize(
    "queue",
    [
        Queue("q", max_priority=5),
        Queue("q", queue_arguments={"x-max-priority": 5, "x-queue-type": "quorum"}),
        Queue("q", no_declare=True),
        None,
    ],
)
def test_a_priority_in_a_queue_that_has_them_or_that_others_declare_is_fine(rabbitmq, caplog, queue):
    rabbitmq.check(queue, None, 5, None)

    assert caplog.text == ""


# --- exchanges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"queue": "everyone"}, {"exchange": "everyone"}])
def test_a_broadcast_is_refused_where_it_would_be_dropped(make, options):
    app = make(SQLA, task_queues=[Queue("celery"), Broadcast("everyone")])

    with pytest.raises(UnsupportedByBroker, match=r"has no fanout exchanges.*'everyone'.*Redis"):
        app.tasks["t.add"].apply_async(**options)


def test_an_exchange_given_by_hand_is_looked_at(make):
    app = make(SQLA)

    with pytest.raises(UnsupportedByBroker, match="fanout"):
        app.tasks["t.add"].apply_async(exchange=Exchange("all", "fanout"), routing_key="")


def test_a_broadcast_from_a_worker_is_refused_too_as_it_would_reach_nobody(make):
    app = make(SQLA, task_queues=[Queue("celery"), Broadcast("everyone")])

    with following(), pytest.raises(UnsupportedByBroker, match="fanout"):
        app.tasks["t.add"].apply_async(queue="everyone")


def test_headers_exchanges_are_refused_where_kombu_has_none(make):
    app = make(task_queues=[Queue("picky", Exchange("picky", "headers"))])

    with pytest.raises(
        UnsupportedByBroker, match=r"has no headers exchanges.*direct, fanout, topic.*RabbitMQ"
    ):
        app.tasks["t.add"].apply_async(queue="picky")


def test_every_exchange_that_a_queue_is_bound_to_is_looked_at(make):
    from kombu import binding

    app = make(task_queues=[Queue("two", bindings=[binding(Exchange("h", "headers"))])])

    with pytest.raises(UnsupportedByBroker, match="headers"):
        app.tasks["t.add"].apply_async(queue="two")


def test_broadcasts_and_topics_pass_in_memory(make):
    app = make(task_queues=[Broadcast("everyone"), Queue("feed", Exchange("feed", "topic"), "feed.#")])
    app.tasks["t.add"].apply_async(queue="everyone")
    app.tasks["t.add"].apply_async(queue="feed", routing_key="feed.import")


# --- remote control and events ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        lambda app: app.control.ping(),
        lambda app: app.control.revoke("id"),
        lambda app: app.control.inspect().active(),
        lambda app: app.AsyncResult("id").revoke(),
    ],
)
def test_remote_control_is_refused_at_once(make, command):
    with pytest.raises(UnsupportedByBroker, match="cannot broadcast, which remote control needs: use Redis"):
        command(make(SQLA))


def test_events_are_off_and_that_is_said_once(make, caplog):
    app = make(SQLA)

    assert not app.amqp.event_dispatcher().enabled
    assert not app.amqp.event_dispatcher().enabled
    assert caplog.text.count("No events are sent: the broker sqla+sqlite") == 1


def test_a_dispatcher_that_shall_not_send_says_nothing(make, caplog):
    with make(SQLA).connection_for_write() as connection:
        assert not EventDispatcher(connection, enabled=False).enabled
    assert "No events" not in caplog.text


# --- delays -----------------------------------------------------------------------------------------


def test_a_delay_longer_than_the_broker_lets_a_worker_hold_it_is_refused(make):
    app = make("kombu.transport.redis.Transport://:secret@localhost")

    with pytest.raises(
        UnsupportedByBroker, match=r"held for 3600 seconds.*run more than once.*raise visibility_timeout"
    ):
        app.tasks["t.add"].apply_async(countdown=4000)
    with pytest.raises(UnsupportedByBroker, match=r"redis://:\*\*@localhost"):
        app.tasks["t.add"].apply_async(eta=datetime.now(UTC) + timedelta(hours=2))


@pytest.fixture
def forgetful():
    can = Capabilities(
        ALL_TYPES, further_types=True, broadcast=True, priorities=YES, delays=False,
        redelivery=Redelivery(60, "visibility_timeout"),
    )  # fmt: skip
    return Gate(can, lambda: "forgetful://")


def test_a_retry_with_a_long_delay_is_sent_with_a_warning(forgetful, caplog):
    with following():
        for seconds in (59, 61, 62):
            forgetful.check_delay(seconds)

    assert caplog.text.count("run more than once") == 1


def test_a_message_that_waits_too_long_is_held_with_a_warning(forgetful, caplog):
    for seconds in (59, 61, 62):
        forgetful.note_held(seconds)

    assert caplog.text.count("It is held all the same") == 1


def test_a_delay_is_kept_where_nobody_delivers_again(make):
    app = make()
    app.tasks["t.add"].apply_async(countdown=10**6)

    assert waiting(app) == 1
