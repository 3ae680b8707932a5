"""A server that refuses, or is none: an error says what to do, and nothing is lost."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Producer, Queue
from redis import exceptions
from redis_support import OURS, Server, drain

import qbrokers.aliases
from qbrokers.errors import BadBrokerURL
from qbrokers.redis import explaining

QUEUE = Queue("jobs")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"), "--appendonly", "no")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def client(shared: Server) -> Iterator[Any]:
    with redis.Redis(port=shared.port) as client:
        client.flushall()
        yield client


def connect(url: str, **options: Any) -> Any:
    return Connection(url, transport=OURS, transport_options={"lease_seconds": 3, **options})


def open_once(url: str, **arguments: Any) -> None:
    """Connect without kombu's retries."""
    connection = Connection(url, transport=OURS, **arguments)
    connection.transport.establish_connection()


def publish(connection: Any, body: str) -> None:
    Producer(connection.default_channel).publish(
        body, routing_key="jobs", content_type="text/plain", content_encoding="utf-8"
    )


@contextmanager
def consuming(connection: Any) -> Iterator[list[Any]]:
    got: list[Any] = []
    with Consumer(connection.channel(), [QUEUE], on_message=got.append, prefetch_count=1):
        yield got


def test_a_server_without_memory_refuses_and_what_it_has_is_served(shared: Server, client: Any) -> None:
    with connect(shared.url) as connection:
        publish(connection, "1")
        publish(connection, "2")
        with consuming(connection) as got:
            drain(connection, 5, lambda: len(got) == 1)
            client.config_set("maxmemory", 1)
            try:
                with pytest.raises(exceptions.ResponseError, match=r"^OOM .*until consumers have made room"):
                    publish(connection, "3")
                got[0].ack()
                drain(connection, 10, lambda: len(got) == 2)
                got[1].ack()
                connection.default_channel.flush()
            finally:
                client.config_set("maxmemory", 0)
    assert [message.payload for message in got] == ["1", "2"]
    assert client.hlen("unacked") == client.llen("jobs") == 0


def test_a_server_that_cannot_save_gets_the_acknowledgements_later(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    server = Server(folder, "--appendonly", "no")
    server.start()
    try:
        with redis.Redis(port=server.port) as client, connect(server.url) as connection:
            publish(connection, "1")
            publish(connection, "2")
            with consuming(connection) as got:
                drain(connection, 5, lambda: len(got) == 1)
                shutil.rmtree(folder)
                client.config_set("save", "3600 1")
                client.bgsave()
                drain(connection, 5, lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
                with pytest.raises(exceptions.ResponseError, match=r"^MISCONF .*look at its disk"):
                    publish(connection, "3")
                got[0].ack()
                drain(connection, 0.5)
                assert client.hlen("unacked") == 1
                client.config_set("stop-writes-on-bgsave-error", "no")
                drain(connection, 10, lambda: len(got) == 2)
                got[1].ack()
            connection.default_channel.flush()
            assert client.hlen("unacked") == client.llen("jobs") == 0
    finally:
        server.kill()


def test_a_user_without_channels_is_told_so_and_gets_its_messages(shared: Server, client: Any) -> None:
    """What Redis 7 gives a new user by default."""
    client.acl_setuser("mute", enabled=True, passwords=["+pw"], commands=["+@all"], keys=["*"], reset=True)
    news = Exchange("news", "fanout")
    with connect(f"redis://mute:pw@127.0.0.1:{shared.port}/0") as connection:
        publish(connection, "1")
        with consuming(connection) as got:
            with pytest.raises(exceptions.ResponseError, match=r"^NOPERM .*ACL SETUSER"):
                Consumer(
                    connection.channel(), [Queue("n", news, auto_delete=True)], on_message=print
                ).consume()
            with pytest.raises(exceptions.ResponseError, match=r"^NOPERM .*ACL SETUSER"):
                Producer(connection.default_channel).publish("x", exchange=news)
            drain(connection, 5, lambda: len(got) == 1)
            got[0].ack()


def test_the_access_list_of_the_readme_is_enough(
    shared: Server, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    readme = Path(__file__).parents[3] / "packages/qbrokers/README.md"
    rule = next(line for line in readme.read_text().splitlines() if line.startswith("ACL SETUSER"))
    client.execute_command(*rule.replace("PASSWORD", "pw").split())
    name = rule.split()[2]
    news = Exchange("news", "fanout")
    got: list[Any] = []
    with connect(f"redis://{name}:pw@127.0.0.1:{shared.port}/0") as connection:
        queues = [Queue("jobs", Exchange("e"), "jobs"), Queue("n", news, auto_delete=True)]
        with Consumer(connection.channel(), queues, on_message=got.append):
            producer = Producer(connection.default_channel)
            producer.publish("1", exchange=Exchange("e"), routing_key="jobs")
            producer.publish("2", exchange=news)
            producer.publish("3", routing_key="jobs", eta_timestamp=time.time() + 0.2)
            drain(connection, 10, lambda: len(got) == 3)
            for message in tuple(got[:2]):
                message.requeue()
            drain(connection, 10, lambda: len(got) == 5)
            for message in got:
                if not message.acknowledged:
                    message.ack()
        connection.default_channel.flush()
        connection.default_channel.queue_delete("jobs")
    assert sorted(message.payload for message in got[:3]) == ["1", "2", "3"]
    assert client.hlen("unacked") == 0
    assert "NOPERM" not in caplog.text


@pytest.mark.parametrize(
    "key", ["jobs", "unacked", "unacked_index", "_qbrokers.owners", "_qbrokers.delayed.jobs"]
)
def test_a_key_of_another_type_takes_nothing_and_is_named(
    shared: Server, client: Any, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    with connect(shared.url) as connection, consuming(connection) as got:
        client.delete(key)
        client.set(key, "in the way")
        if key == "jobs":
            with pytest.raises(
                exceptions.ResponseError, match=r"^WRONGTYPE .*global_keyprefix.* \(key jobs\)"
            ):
                publish(connection, "1")
        else:
            publish(connection, "1")
        drain(connection, 5, lambda: "refused to hand out" in caplog.text)
        assert f"(key {key})" in caplog.text
        assert got == []
        client.delete(key)
        if key == "jobs":
            publish(connection, "1")
        drain(connection, 10, lambda: len(got) == 1)
        got[0].ack()


def test_logins_that_are_refused(shared: Server, client: Any) -> None:
    client.config_set("requirepass", "secret")
    try:
        with pytest.raises(
            exceptions.AuthenticationError, match="it wants a password; check user and password"
        ):
            open_once(shared.url)
        with pytest.raises(exceptions.AuthenticationError, match=r"127\.0\.0\.1:\d+ refused the login"):
            open_once(f"redis://:wrong@127.0.0.1:{shared.port}/0")
    finally:
        with redis.Redis(port=shared.port, password="secret") as other:
            other.config_set("requirepass", "")


def test_a_database_that_the_server_has_not(shared: Server) -> None:
    with pytest.raises(BadBrokerURL, match=rf"127\.0\.0\.1:{shared.port} has no database 99 .*`databases`"):
        open_once(f"redis://127.0.0.1:{shared.port}/99")


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that says one thing to everybody, and leaves the connection open when that is nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened = []

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                opened.append(peer)
                if answer:
                    peer.recv(1000)
                    peer.sendall(answer)
                    peer.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for peer in opened:
            peer.close()


def test_a_web_server_is_not_taken_for_redis() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port, pytest.raises(
        exceptions.ConnectionError, match=rf"127\.0\.0\.1:{port} does not answer as a Redis server does"
    ):  # fmt: skip
        open_once(f"redis://127.0.0.1:{port}/0")


def test_a_server_before_resp3_is_told_from_others() -> None:
    with answering(b"-ERR unknown command 'HELLO'\r\n") as port, pytest.raises(
        exceptions.ConnectionError, match=r"does not speak RESP3; Redis 6\.2 or newer"
    ):  # fmt: skip
        open_once(f"redis://127.0.0.1:{port}/0")


def test_a_silent_server_is_given_up_and_named() -> None:
    with answering(b"") as port, pytest.raises(
        exceptions.TimeoutError, match=rf"127\.0\.0\.1:{port} does not answer"
    ):  # fmt: skip
        open_once(f"redis://127.0.0.1:{port}/0", transport_options={"socket_timeout": 0.5})


def test_tls_to_a_port_without_it(shared: Server) -> None:
    with pytest.raises(exceptions.TimeoutError, match="is it right to use TLS"):
        open_once(
            shared.url, ssl=True, transport_options={"socket_connect_timeout": 0.5, "socket_timeout": 0.5}
        )


def test_a_message_beyond_the_servers_limit_is_not_sent(
    shared: Server, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "MAX_ARGUMENT_BYTES", 10_000)
    with connect(shared.url) as connection:
        with pytest.raises(exceptions.DataError, match="larger than Redis takes"):
            publish(connection, "x" * 20_000)
        publish(connection, "small")
    assert client.llen("jobs") == 1


@pytest.mark.parametrize(
    "name", ["a\x06\x16b", "unacked", "unacked_index", "_qbrokers.owners", "_kombu.binding.celery"]
)
def test_names_that_would_break_the_tables_are_refused(shared: Server, client: Any, name: str) -> None:
    with connect(shared.url) as connection:
        with pytest.raises(ValueError, match=r"choose another name|cannot be called"):
            Queue(name, Exchange("e"), routing_key=name)(connection.default_channel).declare()
        good = Queue("good", Exchange("e"), routing_key="good")
        good(connection.default_channel).declare()
        Producer(connection.default_channel).publish("x", exchange=Exchange("e"), routing_key="good")
    assert client.llen("good") == 1


@pytest.mark.parametrize("name", ["a b", "ünï", "{x}", "a\nb", "a\0b", "x" * 5000, "q.dead"])
def test_other_names_are_names(shared: Server, client: Any, name: str) -> None:
    got: list[Any] = []
    with connect(shared.url) as connection:
        queue = Queue(name, Exchange("e"), routing_key=name)
        with Consumer(connection.channel(), [queue], on_message=got.append):
            Producer(connection.default_channel).publish("x", exchange=Exchange("e"), routing_key=name)
            drain(connection, 5, lambda: len(got) == 1)
            got[0].ack()


def test_an_entry_that_is_no_binding_stops_nobody(
    shared: Server, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = Exchange("e")
    with connect(shared.url) as connection:
        Queue("jobs", exchange, routing_key="jobs")(connection.default_channel).declare()
        client.sadd("_kombu.binding.e", "no binding", b"\xff\x06\x16\x06\x16\xff")
        Producer(connection.default_channel).publish("x", exchange=exchange, routing_key="jobs")
    assert client.llen("jobs") == 1
    assert "SREM _kombu.binding.e" in caplog.text


def test_the_aliases_that_mean_tls_use_it(shared: Server) -> None:
    qbrokers.aliases.install()
    connection = Connection(
        shared.url.replace("redis://", "qrediss://"),
        transport_options={"socket_connect_timeout": 0.3, "socket_timeout": 0.3},
    )
    with pytest.raises(exceptions.TimeoutError, match="is it right to use TLS"):
        connection.transport.establish_connection()


def test_tls_options_of_amqp_are_not_those_of_redis(shared: Server) -> None:
    with pytest.raises(BadBrokerURL, match=r"unknown TLS option 'keyfile'.*did you mean ssl_keyfile"):
        open_once(shared.url, ssl={"keyfile": "key.pem"})


def test_a_program_that_ends_after_its_server_does_so_quietly(tmp_path: Path) -> None:
    server = Server(tmp_path, "--appendonly", "no")
    server.start()
    program = (
        "import sys, kombu\n"
        f"connection = kombu.Connection({server.url!r}, transport={OURS!r})\n"
        "queue = connection.SimpleQueue('jobs')\n"
        "queue.put('x')\n"
        "message = queue.get(timeout=5)\n"
        "print('holding', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        server.kill()
        _, errors = process.communicate(timeout=20)
    finally:
        server.kill()
        process.kill()
    assert b"Traceback" not in errors
    assert b"come back when their lease ends" in errors
    assert process.returncode == 0
