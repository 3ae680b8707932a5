"""What is measured of one transport of kombu: publishing, consuming with acknowledgement, both at once, latency, an
idle consumer. Each is a function of a `Subject`, so other programs can call them.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
import resource
import statistics
import threading
import time
from typing import Any, NamedTuple
from uuid import uuid4

from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer, Producer

BODY = [[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
HEADERS: dict[str, Any] = {
    "lang": "py",
    "task": "bench.add",
    "shadow": None,
    "eta": None,
    "expires": None,
    "retries": 0,
    "timelimit": [None, None],
    "argsrepr": "(1, 2)",
    "kwargsrepr": "{}",
    "origin": "bench",
    "stamps": {},
}
BATCH = 100


class Subject(NamedTuple):
    """A transport under test.

    Attributes:
        url: Broker URL.
        transport: Name or class path of the transport.
        queue: Queue of this run; deleted at the end.
    """

    url: str
    transport: str
    queue: str

    def connect(self) -> Any:
        return Connection(self.url, transport=self.transport)


def _headers() -> dict[str, Any]:
    return {**HEADERS, "id": uuid4().hex, "root_id": uuid4().hex}


def publish_single(subject: Subject, count: int) -> float:
    """Messages per second, one `publish` call each."""
    headers = [_headers() for _ in range(count)]
    with subject.connect() as connection:
        producer = Producer(connection.channel())
        begun = time.perf_counter()
        for each in headers:
            producer.publish(BODY, routing_key=subject.queue, headers=each)
        return count / (time.perf_counter() - begun)


def publish_bulk(subject: Subject, count: int) -> float:
    """Messages per second of many: `publish_many` where the channel has it, `publish` otherwise."""
    headers = [_headers() for _ in range(count)]
    with subject.connect() as connection:
        channel = connection.channel()
        begun = time.perf_counter()
        _put(channel, subject.queue, headers)
        return count / (time.perf_counter() - begun)


def _put(channel: Any, queue: str, headers: list[dict[str, Any]]) -> None:
    if not hasattr(channel, "publish_many"):
        producer = Producer(channel)
        for each in headers:
            producer.publish(BODY, routing_key=queue, headers=each)
        return
    from qbrokers.batching import Publication

    publications = []
    for each in headers:
        properties = {"delivery_mode": 2, "delivery_info": {}}
        body = json.dumps(BODY)
        message = channel.prepare_message(body, 0, "application/json", "utf-8", each, properties)
        publications.append(Publication(message, "", queue))
    channel.publish_many(publications)


def publish_batch(subject: Subject, count: int) -> float:
    """Messages per second through `kombu.Producer.batch`, which kombu 5.7 has for its own transport, too."""
    headers = [_headers() for _ in range(count)]
    with subject.connect() as connection:
        producer = Producer(connection.channel())
        begun = time.perf_counter()
        with producer.batch(max_size=1000):
            for each in headers:
                producer.publish(BODY, routing_key=subject.queue, headers=each)
        return count / (time.perf_counter() - begun)


def consume(subject: Subject, count: int, prefetch: int = 64) -> float:
    """Messages per second, each delivered and acknowledged, of a queue that holds them all."""
    taken = 0

    def on_message(message: Any) -> None:
        nonlocal taken
        message.ack()
        taken += 1

    with subject.connect() as connection:
        channel = connection.channel()
        consumer = Consumer(channel, [Queue(subject.queue)], on_message=on_message)
        consumer.qos(prefetch_count=prefetch)
        begun = time.perf_counter()
        consumer.consume()
        while taken < count:
            connection.drain_events(timeout=10)
        if hasattr(channel, "flush"):
            channel.flush()
        return count / (time.perf_counter() - begun)


def through(subject: Subject, count: int, prefetch: int = 64) -> float:
    """Messages per second that one thread publishes, `BATCH` at a time where the channel can, while another takes
    and acknowledges them.
    """
    publisher = threading.Thread(target=_put_in_batches, args=(subject, [_headers() for _ in range(count)]))
    begun = time.perf_counter()
    publisher.start()
    consume(subject, count, prefetch)
    publisher.join()
    return count / (time.perf_counter() - begun)


def _put_in_batches(subject: Subject, headers: list[dict[str, Any]]) -> None:
    with subject.connect() as connection:
        channel = connection.channel()
        for start in range(0, len(headers), BATCH):
            _put(channel, subject.queue, headers[start : start + BATCH])


def latency(subject: Subject, count: int = 200, queues: int = 1) -> float:
    """Median seconds from `publish` to the callback of a consumer that waits, on an idle system."""
    names = [subject.queue + (f".{i}" if i else "") for i in range(queues)]
    seen: list[float] = []
    arrived = threading.Event()
    stop = threading.Event()

    def on_message(message: Any) -> None:
        seen.append(time.perf_counter())
        message.ack()
        arrived.set()

    def serve() -> None:
        with subject.connect() as connection:
            channel = connection.channel()
            with Consumer(channel, [Queue(name) for name in names], on_message=on_message):
                while not stop.is_set():
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    thread = threading.Thread(target=serve)
    thread.start()
    took = []
    try:
        with subject.connect() as connection:
            producer = Producer(connection.channel())
            for i in range(count):
                arrived.clear()
                time.sleep(0.005)  # the consumer must be waiting again: idle latency is what is measured
                begun = time.perf_counter()
                producer.publish(BODY, routing_key=names[i % queues], headers=_headers())
                if not arrived.wait(5):
                    raise RuntimeError(f"{subject.transport}: a message did not arrive within 5 s")
                took.append(seen[-1] - begun)
    finally:
        stop.set()
        thread.join()
    return statistics.median(took)


def idle(subject: Subject, seconds: float = 5.0) -> float:
    """Share of one CPU that a waiting consumer uses, in percent."""
    with (
        subject.connect() as connection,
        Consumer(connection.channel(), [Queue(subject.queue)], on_message=lambda message: message.ack()),
    ):
        _wait(connection, 0.5)
        used = _cpu_seconds()
        begun = time.perf_counter()
        _wait(connection, seconds)
        return 100 * (_cpu_seconds() - used) / (time.perf_counter() - begun)


def _wait(connection: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection.drain_events(timeout=min(1.0, left))
        except TimeoutError:
            continue


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def names(subject: Subject) -> list[str]:
    """The queues that the measurements use."""
    return [subject.queue, *(f"{subject.queue}.{i}" for i in range(1, 4))]


def prepare(subject: Subject) -> None:
    """Make them."""
    with subject.connect() as connection:
        for name in names(subject):
            Queue(name)(connection.default_channel).declare()


def clean(subject: Subject) -> None:
    """Delete them."""
    with subject.connect() as connection:
        channel = connection.default_channel
        for name in names(subject):
            channel.queue_delete(name)
