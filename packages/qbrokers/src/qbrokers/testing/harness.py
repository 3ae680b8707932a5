"""What the conformance tests share: a target, connections that are closed, names of their own, patience."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from attrs import Factory, frozen

from .untyped import kombu

PATIENCE_SECONDS = 10.0
SILENCE_SECONDS = 0.3

Connect = Callable[..., Any]
Test = TypeVar("Test", bound=Callable[..., object])

_NEEDS = "needs_capability"

CAPABILITIES = {
    "batches": "has the protocol of `qbrokers.batching`",
    "count header": "tells in `x-delivery-count` whether a message was delivered before",
    "delivery count": "counts deliveries beyond the second",
    "release": "puts a message back without counting the delivery",
    "prefetch change": "applies a changed prefetch count to consumers that run",
    "unknown queue": "treats a queue that does not exist as an empty one",
    "delete if empty": "deletes a queue on condition that it is empty",
    "purge delayed": "purges the messages of a queue that wait for their time",
    "priority": "serves messages in order of priority",
    "topics": "has topic exchanges",
    "broadcast": "has fanout exchanges",
    "unbinding": "forgets a binding",
    "large bodies": "takes bodies of more than a megabyte in an envelope",
    "delays": "keeps a message until it is due",
    "event loop": "works in kombu's event loop",
    "other processes": "is shared by several processes",
    "shared bindings": "knows which queues other connections have bound",
    "renewal": "keeps what is held from others, whatever the program that holds it does",
    "put back": "gives to others what a closed channel or connection has held",
    "recover": "returns what a channel holds, in order, when asked",
    "multiple": "acknowledges all messages up to one of them",
}
"""What not every broker can do, and what that means."""


def lease_options(seconds: float) -> dict[str, Any]:
    """Return qbrokers' transport options for leases of that length."""
    return {"lease_seconds": seconds, "heartbeat_seconds": seconds / 4}


@frozen
class Target:
    """A broker to test.

    Attributes:
        url: Where it is; other processes can reach it as well.
        transport: Its transport class as `module:name`.
        options: kombu's transport options.
        lacks: What the broker cannot do by its nature, of `CAPABILITIES`; the tests of that are skipped.
        lease: Returns the transport options for messages of a dead consumer to come back after that many seconds.
    """

    url: str
    transport: str
    options: dict[str, Any] = Factory(dict)
    lacks: frozenset[str] = frozenset()
    lease: Callable[[float], dict[str, Any]] = lease_options

    @property
    def counts(self) -> bool:
        """Whether messages tell how often they were delivered before."""
        return "count header" not in self.lacks

    def connect(self, **options: Any) -> Any:
        """Return a new kombu connection; `options` win over those of the target."""
        module, _, name = self.transport.partition(":")
        transport = getattr(importlib.import_module(module), name)
        return kombu.Connection(self.url, transport=transport, transport_options=self.options | options)

    def start_victim(self, queue: str, count: int) -> subprocess.Popen[bytes]:
        """Start a process that takes `count` messages and holds them; it writes a line when it has them."""
        arguments = [self.url, self.transport, json.dumps(self.options), queue, str(count)]
        return subprocess.Popen(
            [sys.executable, "-m", "qbrokers.testing.victim", *arguments], stdout=subprocess.PIPE
        )


class Harness:
    """Fixtures for all parts of the suite."""

    @pytest.fixture
    def target(self) -> Target:
        """The broker; every subclass has its own."""
        raise LookupError("a subclass of the conformance suite must define the fixture `target`")

    @pytest.fixture(autouse=True)
    def _capabilities(self, request: pytest.FixtureRequest, target: Target) -> None:
        for name in sorted(target.lacks & getattr(request.function, _NEEDS, frozenset())):
            pytest.skip(f"the broker cannot do this: {name} ({CAPABILITIES[name]})")

    @pytest.fixture
    def connect(self, target: Target) -> Iterator[Connect]:
        """A function that opens connections; they are closed after the test."""
        connections = []

        def connect(**options: Any) -> Any:
            connections.append(target.connect(**options))
            return connections[-1]

        yield connect
        for connection in reversed(connections):
            connection.release()

    @pytest.fixture
    def connection(self, connect: Connect) -> Any:
        """An open connection."""
        return connect()

    @pytest.fixture
    def channel(self, connection: Any) -> Any:
        """A channel of `connection`."""
        return connection.channel()

    @pytest.fixture
    def queue(self, channel: Any) -> Iterator[Any]:
        """A declared queue with an exchange of its own; its name is its routing key."""
        name = f"conformance-{uuid.uuid4().hex[:12]}"
        queue = kombu.Queue(name, kombu.Exchange(name, type="direct"), name)(channel)
        queue.declare()
        yield queue
        if channel.connection is not None and not channel.closed:
            queue.delete()


def needs(*capabilities: str) -> Callable[[Test], Test]:
    """Mark a test that a broker without one of the capabilities skips.

    Raises:
        LookupError: There is no such capability.
    """
    unknown = set(capabilities) - set(CAPABILITIES)
    if unknown:
        raise LookupError(f"no capability {', '.join(sorted(unknown))}: there are {', '.join(CAPABILITIES)}")

    def mark(test: Test) -> Test:
        setattr(test, _NEEDS, frozenset(capabilities))
        return test

    return mark


def publish(channel: Any, queue: Any, body: Any, **options: Any) -> None:
    """Publish to a queue through its exchange."""
    kombu.Producer(channel).publish(body, exchange=queue.exchange, routing_key=queue.routing_key, **options)


def send(channel: Any, queue: Any, body: Any) -> None:
    """Publish to a queue by its name, from a connection that need not know its bindings."""
    kombu.Producer(channel).publish(body, exchange="", routing_key=queue.name)


def drain_until(connection: Any, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Drain events until `condition()` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        try:
            connection.drain_events(timeout=0.1)
        except TimeoutError:
            pass


def is_silent(connection: Any, seconds: float = SILENCE_SECONDS) -> bool:
    """Whether nothing at all arrives for a while."""
    try:
        connection.drain_events(timeout=seconds)
    except TimeoutError:
        return True
    return False


def collect(channel: Any, queues: list[Any], count: int, ack: bool = True, **options: Any) -> list[Any]:
    """Consume `count` messages from queues, and return them."""
    messages: list[Any] = []

    def receive(message: Any) -> None:
        messages.append(message)
        if ack:
            message.ack()

    consumer = kombu.Consumer(channel, queues, on_message=receive, **options)
    with consumer:
        drain_until(channel.connection.client, lambda: len(messages) >= count)
    return messages


def taking(received: list[Any]) -> Callable[[Any], None]:
    """Return a callback that acknowledges messages and appends their decoded bodies to a list."""

    def take(message: Any) -> None:
        received.append(message.decode())
        message.ack()

    return take


def bodies(messages: list[Any]) -> list[Any]:
    """Return the decoded bodies."""
    return [message.decode() for message in messages]
