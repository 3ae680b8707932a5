"""Ways to reach a server: Unix socket, TLS, password, Sentinel."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Producer, Queue
from redis_support import OURS, Server, app_connection, drain, free_port, until

from qbrokers.redis.wire import CONNECTION_ERRORS
from qcore.kombu_connection import BrokerConnection

QUEUE = Queue("jobs")


def round_trip(connection: Any) -> None:
    """A message goes out and comes back through the waiting road, and is acknowledged."""
    got: list[Any] = []
    with connection, Consumer(connection.channel(), [QUEUE], on_message=lambda m: (got.append(m), m.ack())):
        drain(connection, 0.2)
        Producer(connection.channel()).publish({"n": 1}, routing_key="jobs")
        drain(connection, 5, lambda: bool(got))
        assert [m.payload for m in got] == [{"n": 1}]


def test_unix_socket_with_password_and_database(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = Server(tmp_path, "--unixsocket", str(path))
    server.start()
    try:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "secret")
        url = f"redis+socket://:secret@{path}?virtual_host=3"
        # Plain kombu takes its own transport for this scheme, whatever it is told; an app's connection
        # takes ours.
        round_trip(BrokerConnection(url))
        with redis.Redis(port=server.port, password="secret", db=3) as client:
            assert client.keys("_qbrokers.*")
        with pytest.raises(redis.exceptions.AuthenticationError):
            BrokerConnection(f"redis+socket://:wrong@{path}").connect()
    finally:
        server.kill()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    target = tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(tmp_path / "key.pem"),
    ]
    command += [
        "-out",
        str(target),
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_tls_with_a_checked_certificate(tmp_path: Path, certificate: Path) -> None:
    port = free_port()
    key = certificate.with_name("key.pem")
    tls = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    server = Server(tmp_path, *tls, "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no")
    server.start()
    try:
        options = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(certificate)}
        round_trip(Connection(f"redis://localhost:{port}/0", transport=OURS, ssl=options))
        with pytest.raises(CONNECTION_ERRORS):
            Connection(
                f"redis://localhost:{port}/0", transport=OURS, ssl={"ssl_cert_reqs": "required"}
            ).connect()
    finally:
        server.kill()


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[tuple[int, Server, Server]]:
    folders = [tmp_path / name for name in ("one", "two", "sentinel")]
    for folder in folders:
        folder.mkdir()
    one = Server(folders[0])
    two = Server(folders[1], "--replicaof", "127.0.0.1", str(one.port))
    watcher = Server(folders[2], "--sentinel")
    configuration = folders[2] / "sentinel.conf"
    configuration.write_text(
        f"port {watcher.port}\nbind 127.0.0.1\nsentinel monitor group 127.0.0.1 {one.port} 1\n"
        "sentinel down-after-milliseconds group 1000\nsentinel failover-timeout group 5000\n"
    )
    process = None
    try:
        one.start()
        two.start()
        process = subprocess.Popen(
            ["redis-server", str(configuration), "--sentinel"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with redis.Redis(port=watcher.port) as client:
            until(lambda: _replicas(client) == 1, 15)
        yield watcher.port, one, two
    finally:
        if process is not None:
            process.kill()
            process.wait()
        one.kill()
        two.kill()


def _replicas(client: Any) -> int:
    try:
        return len(client.execute_command("SENTINEL", "REPLICAS", "group"))
    except redis.exceptions.RedisError:
        return 0


def test_sentinel_finds_the_master_and_its_successor(sentinel: tuple[int, Server, Server]) -> None:
    port, one, two = sentinel

    def connect() -> Any:
        options = {"master_name": "group", "lease_seconds": 3}
        return Connection(
            f"redis://127.0.0.1:{port}/0",
            transport="qbrokers.redis:SentinelTransport",
            transport_options=options,
        )

    round_trip(connect())
    with connect() as connection:
        Producer(connection.channel()).publish({"n": 1}, routing_key="kept")
    with redis.Redis(port=two.port) as client:
        until(lambda: client.llen("kept") == 1, 5)
        one.kill()
        until(lambda: client.info("replication")["role"] == "master", 20)
    deadline = time.monotonic() + 20
    while True:
        try:
            round_trip(connect())
            break
        except CONNECTION_ERRORS:
            assert time.monotonic() < deadline, "the new master was not found"
            time.sleep(0.2)
    with connect() as connection:
        assert connection.channel().basic_get("kept").payload == {"n": 1}


def test_a_sentinel_address_needs_the_name_of_the_group() -> None:
    with pytest.raises(ValueError, match="master_name"):
        Connection("redis://127.0.0.1:1/0", transport="qbrokers.redis:SentinelTransport").connect()


def test_a_cluster_none_of_whose_servers_is_there_is_named() -> None:
    ports = [free_port(), free_port()]
    url = ";".join(f"rediscluster://127.0.0.1:{port}" for port in ports)
    with pytest.raises(CONNECTION_ERRORS, match=str(ports[0])):
        app_connection(url).connect()


def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    with pytest.raises(CONNECTION_ERRORS, match=str(port)):
        Connection(f"redis://127.0.0.1:{port}/0", transport=OURS).connect()
