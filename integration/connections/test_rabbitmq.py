"""Connections and pools on a real RabbitMQ: failing over, forking, refusals."""

from __future__ import annotations

import multiprocessing
import socket
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from qcore import connections
from qcore.settings import Settings


def make(**settings: Any) -> Settings:
    conf = Settings(default_module=None, environ={})
    conf.update(settings)
    return conf


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def queue(amqp_url: str) -> Any:
    """Name of a queue that goes away with the test."""
    name = f"q-test-connections-{uuid4().hex}"
    with connections.connection_for_write(make(broker_url=amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(name, durable=False, auto_delete=False)
        yield name
        channel.queue_delete(name)


def depth(amqp_url: str, queue: str) -> int:
    with connections.connection_for_read(make(broker_url=amqp_url)) as connection:
        count: int = connection.channel().queue_declare(queue, passive=True).message_count
    return count


def test_a_dead_server_is_passed_over(amqp_url: str, dead_port: int) -> None:
    conf = make(broker_url=[f"amqp://guest:guest@127.0.0.1:{dead_port}//", amqp_url])
    started = time.monotonic()
    with connections.publishing_connection(conf) as connection:
        assert connection.channel().is_open
        assert connections.describe(connection).startswith("amqp://")
    assert time.monotonic() - started < 5


def test_a_wrong_password_is_told_without_the_password(amqp_url: str) -> None:
    parts = urlsplit(amqp_url)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"guest:wrong-secret@{host}"))
    connection = connections.publishing_connection(make(broker_url=url))
    with pytest.raises(Exception, match=r"ACCESS_REFUSED|403|[Cc]losed") as caught:
        connection.channel()
    message = connections.connection_error_message(caught.value, connection)
    assert "wrong-secret" not in message
    assert "guest:**@" in message


def publish_in_child(pool: Any, queue: str) -> None:
    with pool.acquire(block=True) as producer:
        producer.publish({"from": "child"}, routing_key=queue)


def test_parent_and_forked_child_publish_through_one_pool(amqp_url: str, queue: str) -> None:
    pool = connections.producer_pool(make(broker_url=amqp_url, broker_pool_limit=2))
    with pool.acquire(block=True) as producer:
        producer.publish({"from": "parent"}, routing_key=queue)
    children = [
        multiprocessing.get_context("fork").Process(target=publish_in_child, args=(pool, queue))
        for _ in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
    assert [child.exitcode for child in children] == [0, 0, 0]
    with pool.acquire(block=True) as producer:
        producer.publish({"from": "parent"}, routing_key=queue)
    deadline = time.monotonic() + 10
    while depth(amqp_url, queue) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert depth(amqp_url, queue) == 5
    pool.force_close_all()


def test_a_connection_killed_by_the_server_is_replaced(amqp_url: str, queue: str) -> None:
    pool = connections.connection_pool(make(broker_url=amqp_url, broker_pool_limit=1))
    connection = pool.acquire(block=True)
    connection.connect()
    connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(connection.connection_errors):
        connection.channel()
    connection.__exit__(OSError, OSError(), None)
    with pool.acquire(block=True) as repaired:
        assert repaired.channel().is_open
    pool.force_close_all()
