"""Addresses of messages, and tasks that every worker runs (W1-04, 4ROU-41..46, 4X-16)."""

import pytest
from kombu import Exchange, Queue

from qcore import App
from qcore.queues import Broadcast, is_broadcast


@pytest.fixture
def make():
    apps = []

    def make(**settings):
        app = App("t", broker="memory://", backend="cache+memory://", set_as_current=False, **settings)
        app.task(name="t.add")(lambda x: x)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


def address(app, **options):
    found = app.amqp.address(app.amqp.router.route(options, "t.add"))
    return found.exchange, found.routing_key


def test_a_direct_queue_is_reached_by_its_name(make):
    assert address(make()) == ("", "celery")
    assert address(make(), queue="video") == ("", "video")


def test_a_key_alone_does_not_lead_past_a_direct_queue(make):
    app = make(
        task_queues={"cpubound": {"exchange": "cpubound", "routing_key": "cpubound"}},
        task_routes={"t.add": {"queue": "cpubound", "routing_key": "tasks.add"}},
    )
    assert address(app) == ("", "cpubound")
    assert address(make(), routing_key="k") == ("", "celery")


def test_exchange_and_key_given_are_used(make):
    assert address(make(), exchange="C.dq2", routing_key="w1@h") == ("C.dq2", "w1@h")
    assert address(make(), exchange=Exchange("media", type="topic"), routing_key="a.b") == ("media", "a.b")


def test_a_topic_queue_is_reached_through_its_exchange(make):
    app = make(task_queues=[Queue("feed", Exchange("tasks", "topic"), routing_key="feed.#")])
    assert address(app, queue="feed") == ("tasks", "feed.#")
    assert address(app, queue="feed", routing_key="feed.import") == ("tasks", "feed.import")


@pytest.mark.parametrize(
    "options",
    [{"queue": "everyone"}, {"exchange": "everyone"}, {"queue": "everyone", "exchange": "everyone"}],
)
def test_every_way_to_broadcast_leads_to_the_fanout_exchange(make, options):
    app = make(task_queues=[Queue("celery"), Broadcast("everyone")])
    # Celery's workers listen on Redis for this key.
    assert address(app, **options) == ("everyone", "celery")


@pytest.mark.parametrize("options", [{"queue": "everyone"}, {"exchange": "everyone"}])
def test_each_worker_gets_a_copy_from_a_fresh_client(make, options):
    workers = [make(task_queues=[Broadcast("everyone")]) for _ in range(2)]
    client = make(task_queues=[Queue("celery"), Broadcast("everyone")])
    connections = [worker.connection_for_read() for worker in workers]
    copies = []
    for worker, connection in zip(workers, connections, strict=True):
        queue = worker.amqp.queues["everyone"](connection.default_channel)
        queue.declare()
        copies.append(queue)
    client.tasks["t.add"].apply_async((1,), ignore_result=True, **options)
    assert [copy.get(no_ack=True).headers["task"] for copy in copies] == ["t.add", "t.add"]
    own = client.amqp.queues["everyone"].name
    assert own not in connections[0].default_channel.queues
    for copy, connection in zip(copies, connections, strict=True):
        copy.delete()
        connection.release()


def test_a_durable_queue_on_a_fanout_exchange_is_declared_by_the_client():
    assert not is_broadcast(Queue("log", Exchange("all", "fanout")))
    assert is_broadcast(Broadcast("all"))
