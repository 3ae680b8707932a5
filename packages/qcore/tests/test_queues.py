"""Queues by name (RT-02, RT-09..19, C-096..122, QU, 4ROU, W1)."""

import pytest
from kombu import Exchange, Queue, binding

from qcore.errors import ImproperlyConfigured
from qcore.queues import Broadcast, QueueDefaults, Queues, is_broadcast, worker_direct
from qcore.settings import Settings


def make(**settings):
    conf = Settings(default_module=None, environ={})
    conf.update(settings)
    return Queues.from_settings(conf)


def shape(queue):
    return (queue.name, queue.exchange.name, queue.exchange.type, queue.routing_key)


def test_without_settings_there_is_the_default_queue():
    queues = make()
    assert list(queues) == ["celery"]
    queue = queues["celery"]
    assert shape(queue) == ("celery", "celery", "direct", "celery")
    assert (queue.durable, queue.exclusive, queue.auto_delete, queue.queue_arguments) == (
        True,
        False,
        False,
        None,
    )
    assert queue.exchange.durable


def test_changing_the_default_queue_changes_exchange_and_key():
    assert shape(make(task_default_queue="default")["default"]) == ("default", "default", "direct", "default")


def test_missing_queues_are_made_when_named():
    queues = make()
    assert "video" not in queues
    assert shape(queues["video"]) == ("video", "video", "direct", "video")
    assert "video" in queues
    assert queues["video"] is queues["video"]


def test_asking_with_get_makes_nothing():
    queues = make()
    assert queues.get("video") is None
    assert len(queues) == 1


def test_missing_queues_are_refused_when_that_is_off():
    queues = make(task_create_missing_queues=False)
    with pytest.raises(KeyError):
        queues["video"]
    with pytest.raises(ImproperlyConfigured, match="task_create_missing_queues"):
        queues.select("video")


def test_type_of_missing_queues():
    queues = make(task_create_missing_queue_type="quorum", task_create_missing_queue_exchange_type="topic")
    assert queues["video"].queue_arguments == {"x-queue-type": "quorum"}
    assert shape(queues["video"]) == ("video", "video", "topic", "video")
    assert queues["celery"].queue_arguments is None


def test_type_of_the_default_queue():
    assert make(task_default_queue_type="quorum")["celery"].queue_arguments == {"x-queue-type": "quorum"}


def test_declared_queues_get_what_they_lack():
    queues = make(
        task_default_queue="default",
        task_default_exchange="tasks",
        task_default_exchange_type="topic",
        task_default_routing_key="task.default",
        task_queues=(
            Queue("default", routing_key="task.#"),
            Queue("feed", routing_key="feed.#"),
            Queue("plain"),
            Queue("image", Exchange("media", type="direct"), routing_key="image.compress"),
        ),
    )
    assert [shape(queue) for queue in queues.values()] == [
        ("default", "tasks", "topic", "task.#"),
        ("feed", "tasks", "topic", "feed.#"),
        ("plain", "tasks", "topic", "task.default"),
        ("image", "media", "direct", "image.compress"),
    ]


def test_queues_as_a_mapping():
    queues = make(
        task_queues={
            "cpubound": {"exchange": "cpu", "routing_key": "cpu.key"},
            "bound": {"binding_key": "b.key", "exchange": "e", "exchange_type": "topic"},
            "bare": None,
            "given": Queue("given"),
        }
    )
    assert shape(queues["cpubound"]) == ("cpubound", "cpu", "direct", "cpu.key")
    assert shape(queues["bound"]) == ("bound", "e", "topic", "b.key")
    assert shape(queues["bare"])[3] == "bare"
    assert "given" in queues


def test_names_alone_are_queues():
    assert list(make(task_queues=["a", "b"])) == ["a", "b"]


@pytest.mark.parametrize("declared", ["celery", 3, [3], [Exchange("x")]])
def test_other_things_are_refused(declared):
    with pytest.raises(ImproperlyConfigured, match="task_queues"):
        make(task_queues=declared)


def test_several_bindings_are_kept():
    media = Exchange("media")
    queue = Queue("media", [binding(media, routing_key="a"), binding(media, routing_key="b")])
    assert len(make(task_queues=[queue])["media"].bindings) == 2


def test_priorities_are_added_where_none_are_set():
    queues = make(
        task_queue_max_priority=5,
        task_queues=[
            Queue("a"),
            Queue("b", queue_arguments={"x-max-priority": 9}),
            Queue("c", max_priority=3),
        ],
    )
    assert queues["a"].queue_arguments == {"x-max-priority": 5}
    assert queues["b"].queue_arguments == {"x-max-priority": 9}
    assert queues["c"].queue_arguments is None
    assert queues["new"].queue_arguments == {"x-max-priority": 5}


def test_arguments_of_other_queues_are_not_touched():
    arguments = {"x-expires": 1}
    make(task_queue_max_priority=5, task_queues=[Queue("a", queue_arguments=arguments)])
    assert arguments == {"x-expires": 1}


def test_a_worker_consumes_from_what_is_declared():
    queues = make(task_queues=[Queue("a"), Queue("b")])
    queues["made"]
    assert list(queues.consume_from) == ["a", "b"]


def test_selecting():
    queues = make(task_queues=[Queue("a"), Queue("b")])
    queues.select("b, new")
    assert list(queues.consume_from) == ["b", "new"]
    queues.select(())
    assert list(queues.consume_from) == ["b", "new"]


def test_deselecting():
    queues = make(task_queues=[Queue("a"), Queue("b")])
    queues.deselect(["b", "unknown"])
    assert list(queues.consume_from) == ["a"]
    assert "b" in queues


def test_a_queue_added_is_consumed_from_whatever_was_selected():
    queues = make(task_queues=[Queue("a"), Queue("b")])
    queues.select_add("direct")
    assert list(queues.consume_from) == ["a", "b", "direct"]
    queues.select("a")
    queues.select_add("w.dq", exchange="C.dq", exchange_type="direct", routing_key="w")
    assert list(queues.consume_from) == ["a", "w.dq"]
    assert shape(queues["w.dq"]) == ("w.dq", "C.dq", "direct", "w")


def test_adding_by_hand_with_all_options():
    queue = make().select_add(
        "baz",
        exchange="ex",
        exchange_type="topic",
        routing_key="media.*",
        queue_durable=False,
        exchange_durable=False,
    )
    assert shape(queue) == ("baz", "ex", "topic", "media.*")
    assert (queue.durable, queue.exchange.durable) == (False, False)


def test_adding_with_an_exchange_object():
    queue = make().add("baz", exchange=Exchange("ex", type="topic"), routing_key="k")
    assert shape(queue) == ("baz", "ex", "topic", "k")


def test_the_copy_of_what_is_consumed_is_a_copy():
    queues = make()
    queues.consume_from.clear()
    assert queues.consume_from


def test_version_tells_of_changes():
    queues = make()
    before = queues.version
    queues["new"]
    assert queues.version == before + 1
    queues["new"]
    assert queues.version == before + 1


def test_start_up_lines():
    queues = make(task_queues=[Queue("b"), Queue("a")])
    assert queues.format() == (
        ".> a                exchange=celery(direct) key=celery\n"
        ".> b                exchange=celery(direct) key=celery"
    )
    assert queues.format(indent=4, indent_first=False).splitlines()[1].startswith("    .> b")


def test_exchange_of_made_queues_can_be_decided():
    queues = Queues(None, QueueDefaults(), autoexchange=lambda name: Exchange(f"ex-{name}"))
    assert queues["video"].exchange.name == "ex-video"


def test_broadcast_queues():
    queues = make(task_queues=[Broadcast("everyone")], task_queue_max_priority=None)
    queue = queues["everyone"]
    assert queue.name.startswith("bcast.")
    assert queue.auto_delete
    assert (queue.exchange.name, queue.exchange.type, queue.routing_key) == ("everyone", "fanout", "celery")
    assert is_broadcast(queue)
    assert not is_broadcast(queues["celery"])
    queues.deselect("everyone")
    assert queues.consume_from == {}


def test_broadcast_queue_names():
    assert Broadcast("x", queue="mine").name == "mine"
    assert Broadcast("x", unique=True).name != Broadcast("x", unique=True).name


def test_worker_direct_queues():
    queue = worker_direct("w1@example.com")
    assert shape(queue) == ("w1@example.com.dq2", "C.dq2", "direct", "w1@example.com")
    assert (queue.durable, queue.auto_delete) == (True, False)
    assert worker_direct(queue) is queue
