"""Connections to the broker (C-123..130, 4SET-01..15, CON, EX-39)."""

import multiprocessing
import os
import socket
import ssl
import time
from importlib.util import find_spec

import pytest
from kombu.exceptions import ConnectionLimitExceeded, LimitExceeded
from kombu.transport import memory

from qcore import App, connections
from qcore.errors import ImproperlyConfigured, OperationalError
from qcore.settings import Settings

needs_redis = pytest.mark.skipif(
    not (find_spec("redis") and find_spec("hiredis")), reason="the extra qbrokers[redis] is not installed"
)


def make(**settings):
    conf = Settings(default_module=None, environ={})
    conf.update(settings)
    return conf


def describe(**settings):
    return connections.describe(connections.connection_for_write(make(**settings)))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://localhost//"),
        ("amqp://me:secret@host:5673/vhost", "amqp://me:**@host:5673/vhost"),
        ("amqp://", "amqp://guest:**@localhost:5672//"),
        ("pyamqp://", "amqp://guest:**@localhost:5672//"),
        pytest.param("redis://localhost/3", "redis://localhost:6379/3", marks=needs_redis),
        pytest.param("redis://:secret@localhost/3", "redis://:**@localhost:6379/3", marks=needs_redis),
        ("kombu.transport.memory.Transport://localhost", "memory://localhost//"),
        ("kombu.transport.memory:Transport://localhost", "memory://localhost//"),
    ],
)
def test_urls(url, shown):
    assert describe(broker_url=url) == shown


def test_the_scheme_may_be_a_class():
    connection = connections.connection_for_write(make(broker_url="kombu.transport.memory.Transport://"))
    assert connection.transport_cls is memory.Transport
    with connection.channel() as channel:
        assert channel.connection is not None


@pytest.mark.parametrize("url", ["redsi://x", "no.such.module.Transport://x", "nothing-like-it-at-all://x"])
def test_unknown_schemes_are_refused(url):
    with pytest.raises(ImproperlyConfigured):
        connections.connection_for_write(make(broker_url=url))


def test_a_misspelt_scheme_gets_a_suggestion():
    with pytest.raises(ImproperlyConfigured, match="did you mean redis://"):
        connections.connection_for_write(make(broker_url="redsi://x"))


@pytest.mark.parametrize("url", ["amqp://a;amqp://b", ["amqp://a", "amqp://b"], ("amqp://a;", " amqp://b ")])
def test_several_urls(url):
    connection = connections.connection_for_write(make(broker_url=url))
    assert connection.alt == ["amqp://a", "amqp://b"]
    assert connection.hostname == "a"
    connection.maybe_switch_next()
    assert connection.hostname == "b"


def test_failing_over_to_another_kind_of_broker():
    connection = connections.connection_for_write(make(broker_url=["amqp://a", "memory://b"]))
    connection.maybe_switch_next()
    assert connection.channel().connection is not None
    assert connections.describe(connection) == "memory://b//"


def test_failing_over_between_urls_with_a_class():
    url = "kombu.transport.memory.Transport://a;kombu.transport.memory.Transport://b"
    connection = connections.connection_for_write(make(broker_url=url))
    connection.maybe_switch_next()
    assert connection.hostname == "b"
    assert connection.transport_cls is memory.Transport


def always_last(servers):
    while True:
        yield servers[-1]


@pytest.mark.parametrize("strategy", [always_last, "failover_here:always_last", "failover_here.always_last"])
def test_failover_strategies(strategy, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "failover_here", sys.modules[__name__])
    conf = make(broker_url="amqp://a;amqp://b;amqp://c", broker_failover_strategy=strategy)
    connection = connections.connection_for_write(conf)
    connection.maybe_switch_next()
    assert connection.hostname == "c"


def test_unknown_failover_strategies_are_refused():
    with pytest.raises(ImproperlyConfigured, match="round-robin or shuffle"):
        connections.connection_for_write(make(broker_url="amqp://", broker_failover_strategy="random"))


def test_reading_and_writing_may_go_elsewhere():
    conf = make(
        broker_url="amqp://both", broker_read_url="amqp://r", broker_write_url=["amqp://w1", "amqp://w2"]
    )
    assert connections.connection_for_read(conf).hostname == "r"
    assert connections.connection_for_write(conf).alt == ["amqp://w1", "amqp://w2"]
    conf = make(broker_url="amqp://both")
    assert connections.connection_for_read(conf).hostname == "both"
    assert connections.connection_for_write(conf).hostname == "both"


def test_an_explicit_url_wins():
    assert connections.connection_for_read(make(broker_url="amqp://a"), "amqp://b").hostname == "b"


@needs_redis
def test_urls_in_parts():
    conf = make(
        broker_transport="redis", broker_host="h", broker_port=99, broker_password="p/@:", broker_vhost="3"
    )
    connection = connections.connection_for_write(conf)
    assert (connection.hostname, connection.port, connection.password, connection.virtual_host) == (
        "h",
        99,
        "p/@:",
        "3",
    )


def test_settings_reach_the_connection():
    connection = connections.connection_for_write(
        make(
            broker_url="amqp://",
            broker_connection_timeout=2.5,
            broker_login_method="EXTERNAL",
            broker_use_ssl={"ca_certs": "x"},
            broker_transport_options={"a": 1, "b": 2},
        ),
        transport_options={"b": 3},
        heartbeat=7,
    )
    assert connection.connect_timeout == 2.5
    assert connection.login_method == "EXTERNAL"
    assert connection.ssl == {"ca_certs": "x"}
    assert connection.transport_options == {"a": 1, "b": 3}
    assert connection.heartbeat == 7


def test_publishing_on_amqp_has_the_deadline_of_the_settings():
    conf = make(broker_url="amqp://", broker_publish_timeout=3, broker_transport_options={"a": 1})
    assert connections.publishing_connection(conf).transport_options == {"a": 1, "publish_timeout": 3}


def test_queue_type_of_delayed_delivery_reaches_the_connection():
    conf = make(broker_url="amqp://", broker_native_delayed_delivery_queue_type="classic")
    options = connections.connection_for_read(conf).transport_options
    assert options == {"native_delayed_delivery_queue_type": "classic"}


@needs_redis
def test_tls_schemes_check_the_server_unless_told_otherwise():
    secure = connections.connection_for_write(make(broker_url="rediss://h"))
    assert secure.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    told = connections.connection_for_write(
        make(broker_url="rediss://h", broker_use_ssl={"ssl_cert_reqs": "none"})
    )
    assert told.ssl == {"ssl_cert_reqs": "none"}
    assert connections.connection_for_write(make(broker_url="redis://h")).ssl is False


def test_copies_are_alike():
    connection = connections.connection_for_write(make(broker_url="kombu.transport.memory.Transport://h"))
    copy = connection.clone()
    assert type(copy) is type(connection)
    assert connections.describe(copy) == connections.describe(connection)


# --- opening ------------------------------------------------------------------------------------------


@pytest.fixture
def dead_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_dead_broker_is_reported_at_once_and_by_name(dead_port):
    conf = make(broker_url=f"amqp://me:secret@127.0.0.1:{dead_port}//")
    connection = connections.publishing_connection(conf)
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        connection.channel()
    assert time.monotonic() - started < 1
    message = connections.connection_error_message(caught.value, connection)
    assert message.startswith(f"cannot reach the broker amqp://me:**@127.0.0.1:{dead_port}//: ")
    assert "refused" in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"broker_url": "sqlite:///:memory:"}, "names no file"),
        ({"broker_url": "sqlite:///b.db?lease_secnds=3"}, "did you mean lease_seconds"),
        ({"broker_url": "sqlite:///b.db", "broker_transport_options": {"lease_secnds": 3}}, "lease_seconds"),
    ],
)
def test_what_a_transport_cannot_use_is_a_matter_of_the_settings(settings, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImproperlyConfigured, match=words):
        connections.connection_for_write(make(**settings)).connect()


@needs_redis
@pytest.mark.parametrize("url", ["redis://h/x", "redis://h/-1"])
def test_the_path_of_a_redis_url_is_a_number(url):
    with pytest.raises(ImproperlyConfigured, match="database number"):
        connections.connection_for_write(make(broker_url=url)).connect()


@needs_redis
def test_a_misspelt_transport_option_of_redis():
    settings = make(broker_url="redis://h", broker_transport_options={"visibilty_timeout": 3})
    with pytest.raises(ImproperlyConfigured, match="did you mean visibility_timeout"):
        connections.connection_for_write(settings).connect()


def test_options_of_the_transport_do_not_go_into_the_url():
    with pytest.raises(ImproperlyConfigured, match="broker_transport_options"):
        connections.connection_for_write(make(broker_url="amqp://h?confirm_publish=yes"))


def test_a_broken_file_is_reported_as_the_broker(tmp_path):
    path = tmp_path / "b.db"
    path.write_bytes(b"no database at all, but long enough to have a header" * 100)
    app = App("broken", broker=f"sqlite:///{path}", set_as_current=False)
    with pytest.raises(OperationalError, match=r"cannot send to the broker .*b\.db.*move the file"):
        app.send_task("nobody")
    app.close()


def test_each_server_is_tried_once(dead_port):
    url = f"amqp://127.0.0.1:{dead_port};memory://alive"
    with connections.connection_for_write(make(broker_url=url)) as connection:
        assert connection.connection is not None
        assert connection.hostname == "alive"


def test_publishing_waits_no_longer_than_a_publish_may():
    conf = make(broker_url="amqp://", broker_connection_timeout=9.0, broker_publish_timeout=2.0)
    assert connections.publishing_connection(conf).connect_timeout == 2.0
    conf = make(broker_url="amqp://", broker_connection_timeout=None, broker_publish_timeout=None)
    assert connections.publishing_connection(conf).connect_timeout is None


def test_a_closed_connection_is_not_opened_by_looking():
    connection = connections.connection_for_write(make(broker_url="memory://"))
    connection.connect()
    connection.release()
    assert connection.connection is None


def test_a_description_never_fails():
    connection = connections.connection_for_write(make(broker_url="memory://h"))
    connection.transport_cls = "no such transport"
    assert connections.describe(connection) == "h"


# --- results ------------------------------------------------------------------------------------------


def test_results_follow_the_broker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert connections.result_backend_url(make()).endswith("/.q/results.db")
    assert connections.result_backend_url(make(broker_url="memory://")) is None
    assert connections.result_backend_url(make(result_backend="redis://")) == "redis://"
    assert connections.broker_urls(make())[0].endswith("/.q/broker.db")


def test_a_url_for_one_direction_leaves_the_standard_broker_for_the_other():
    assert connections.broker_urls(make(broker_read_url="memory://r"), "write") == ["amqp://"]


# --- pools --------------------------------------------------------------------------------------------


@pytest.fixture
def conf():
    return make(broker_url="memory://", broker_pool_limit=2, broker_pool_acquire_timeout=0.01)


def test_connections_are_used_again(conf):
    pool = connections.connection_pool(conf)
    with pool.acquire(block=True) as first:
        pass
    with pool.acquire(block=True) as second:
        assert second is first


def test_the_limit_holds(conf):
    pool = connections.connection_pool(conf)
    with pool.acquire(), pool.acquire(), pytest.raises(ConnectionLimitExceeded):
        pool.acquire()


def test_waiting_for_a_connection_ends(conf):
    pool = connections.producer_pool(conf)
    with pool.acquire(), pool.acquire(), pytest.raises(LimitExceeded):
        pool.acquire(block=True)


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_each_use_has_its_own(limit):
    pool = connections.connection_pool(make(broker_url="memory://", broker_pool_limit=limit))
    with pool.acquire() as first, pool.acquire() as second:
        assert first is not second


def test_a_connection_that_failed_is_closed_and_opened_again(conf):
    pool = connections.connection_pool(conf)
    connection = pool.acquire()
    connection.connect()
    connection.__exit__(ValueError, ValueError("mine"), None)
    assert not connection.connected
    with pool.acquire() as connection:
        assert connection.channel() is not None


def test_producers_send_with_the_serializer_of_tasks(conf):
    conf.task_serializer = "pickle"
    pool = connections.producer_pool(conf)
    with pool.acquire(block=True) as producer:
        assert producer.serializer == "pickle"
        producer.publish([1], routing_key="somewhere")
    with pool.acquire(block=True) as producer:
        producer.publish([1], routing_key="somewhere")


def test_pooled_connections_may_be_copied(conf):
    with connections.connection_pool(conf).acquire() as connection:
        copy = connection.clone()
        assert copy.channel() is not None
        copy.release()


def use_in_child(pool, parents, answers):
    with pool.acquire(block=True) as connection:
        answers.put((os.getpid(), id(connection) in parents, connection.channel() is not None))


def test_a_forked_child_has_connections_of_its_own(conf):
    context = multiprocessing.get_context("fork")
    pool = connections.connection_pool(conf)
    with pool.acquire() as one, pool.acquire() as two:
        one.connect()
        two.connect()
        parents = {id(one), id(two)}
        answers = context.SimpleQueue()
        child = context.Process(target=use_in_child, args=(pool, parents, answers))
        child.start()
        pid, is_parents, works = answers.get()
        child.join(10)
        assert child.exitcode == 0
        assert (pid != os.getpid(), is_parents, works) == (True, False, True)
        assert one.connected
        assert two.connected
