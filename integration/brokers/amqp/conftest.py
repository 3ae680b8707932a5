"""What the tests of the AMQP transport share."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "faults")]

from servers.contract import Unavailable  # noqa: E402
from servers.missing import end_without  # noqa: E402
from servers.rabbitmq import RabbitMQ  # noqa: E402

from qbrokers.testing.harness import Target  # noqa: E402
from qbrokers.testing.untyped import kombu  # noqa: E402


@pytest.fixture
def target(amqp_url: str) -> Target:
    return Target(amqp_url, "qbrokers.amqp:Transport")


@pytest.fixture
def connect(target: Target) -> Iterator[Callable[..., Any]]:
    connections = []

    def connect(**options: Any) -> Any:
        connections.append(target.connect(**options))
        return connections[-1]

    yield connect
    for connection in reversed(connections):
        connection.release()


@pytest.fixture
def channel(connect: Callable[..., Any]) -> Any:
    return connect().channel()


@pytest.fixture
def queue(connect: Callable[..., Any]) -> Iterator[Any]:
    """A declared queue with an exchange of its own; it is deleted afterwards, also when its channel broke."""
    name = f"amqp-test-{uuid.uuid4().hex[:12]}"
    queue = kombu.Queue(name, kombu.Exchange(name, type="direct"), name)
    queue(connect().channel()).declare()
    yield queue(connect().channel())
    cleaner = connect().channel()
    cleaner.queue_delete(name)
    cleaner.exchange_delete(name)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A function that starts a server with further lines of `rabbitmq.conf`, and returns its URL."""
    started = []

    def start(configuration: str) -> str:
        server = RabbitMQ(configuration)
        try:
            url = server.start(tmp_path_factory.mktemp("rabbitmq"))
        except Unavailable as error:
            end_without("RabbitMQ of our own", str(error))
        started.append(server)
        return url

    yield start
    for server in started:
        server.stop()
