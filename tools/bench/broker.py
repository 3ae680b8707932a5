"""Measure a transport of kombu: publishing, consuming with acknowledgement, latency, an idle consumer.

`python tools/bench/broker.py --json` (or `--url amqp://guest:guest@127.0.0.1:5672//`) runs ours and kombu's own in
interleaved rounds on the same server and prints medians and ratios. Each measurement is a function of a
`Subject`, so other programs can call them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import uuid4

from kombu import Connection, Consumer, Producer, Queue

BODY = [[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
HEADERS = {
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
STOCK = {"redis": "redis", "amqp": "pyamqp"}
OURS = {"redis": "qbrokers.redis:Transport", "amqp": "qbrokers.amqp:Transport"}


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
        if not hasattr(channel, "publish_many"):
            return publish_single(subject, count)
        from qbrokers.batching import Publication

        begun = time.perf_counter()
        publications = []
        for each in headers:
            properties = {"delivery_mode": 2, "delivery_info": {}}
            body = json.dumps(BODY)
            message = channel.prepare_message(body, 0, "application/json", "utf-8", each, properties)
            publications.append(Publication(message, "", subject.queue))
        channel.publish_many(publications)
        return count / (time.perf_counter() - begun)


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
    return [subject.queue, *(f"{subject.queue}.{i}" for i in range(1, 4))]


def prepare(subject: Subject) -> None:
    with subject.connect() as connection:
        for name in names(subject):
            Queue(name)(connection.default_channel).declare()


def clean(subject: Subject) -> None:
    with subject.connect() as connection:
        channel = connection.default_channel
        for name in names(subject):
            channel.queue_delete(name)


class Result(NamedTuple):
    """Medians of one measurement, and how many times better ours is."""

    name: str
    unit: str
    ours: float
    stock: float
    ratio: float


def compare(url: str, count: int, rounds: int, idle_seconds: float) -> list[Result]:
    """Run everything for both transports, in turns."""
    scheme = url.partition(":")[0]
    transports = (OURS[scheme], STOCK[scheme])
    subjects = [Subject(url, transport, f"bench-{uuid4().hex[:8]}") for transport in transports]
    for subject in subjects:
        prepare(subject)
    steps: list[tuple[str, str, Callable[[Subject], float], bool]] = [
        ("publish", "/s", lambda s: publish_single(s, count), True),
        ("bulk publish", "/s", lambda s: publish_bulk(s, count), True),
        ("kombu batch publish", "/s", lambda s: publish_batch(s, count), True),
        ("consume+ack", "/s", lambda s: consume(s, 3 * count), True),
        ("idle latency", "s", lambda s: latency(s), False),
        ("idle latency, 4 queues", "s", lambda s: latency(s, queues=4), False),
        ("idle consumer", "% CPU", lambda s: idle(s, idle_seconds), False),
    ]
    values: dict[tuple[str, str], list[float]] = {}
    try:
        for _ in range(rounds):
            for name, _, measure, _ in steps:
                for subject in subjects:
                    values.setdefault((name, subject.transport), []).append(measure(subject))
    finally:
        for subject in subjects:
            clean(subject)
    results = []
    for name, unit, _, more_is_better in steps:
        ours, stock = (statistics.median(values[name, s.transport]) for s in subjects)
        results.append(Result(name, unit, ours, stock, ours / stock if more_is_better else stock / ours))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="redis://127.0.0.1:6379/12")
    parser.add_argument("--count", type=int, default=5000, help="messages per publishing round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle-seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    results = compare(options.url, options.count, options.rounds, options.idle_seconds)
    if options.json:
        json.dump({result.name: result._asdict() for result in results}, sys.stdout, indent=2)
        print()
        return
    for result in results:
        print(
            f"{result.name:24} {result.ours:12.6g} {result.stock:12.6g} {result.unit:6} x {result.ratio:.2f}"
        )


if __name__ == "__main__":
    main()
