"""Publishers and consumers at work while the test does something to the servers, and what became of each
message.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Consumer, Producer, Queue
from kombu.exceptions import OperationalError
from redis_support import until

from qbrokers.batching import Publication
from qbrokers.redis.errors import NotReplicated
from qbrokers.redis.wire import CONNECTION_ERRORS

PAUSE_SECONDS = 0.004
HOLD_SECONDS = 0.05
DELAY_SECONDS = 0.4
PREFETCH = 20


class Load:
    """Threads that publish and consume; a connection that is lost is opened again, as a program would.

    Single messages with and without priority, delayed ones and batches are published; consumers hold what they
    get for a moment and acknowledge it then, on whatever connection there is.

    Args:
        connect: Makes a connection.
        queues: Names of the queues.
        left: Counts the messages that wait or are held.

    Attributes:
        acknowledged: Messages whose publishing returned.
        uncertain: Messages whose publishing ended with an error: they may have arrived.
        deliveries: How often each message was delivered.
        losses: Connections lost by publishers and consumers.
        silences: Longest time without a delivery, by queue.
    """

    def __init__(self, connect: Callable[[], Any], queues: list[str], left: Callable[[], int]) -> None:
        self.acknowledged: set[str] = set()
        self.uncertain: set[str] = set()
        self.deliveries: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()
        self.silences: dict[str, float] = {}
        self.failures: list[BaseException] = []
        self._connect = connect
        self._queues = queues
        self._left = left
        self._last: dict[str, float] = {}
        self._publishing = threading.Event()
        self._consuming = threading.Event()
        self._threads: list[threading.Thread] = []

    @contextmanager
    def running(self, publishers: int = 2, consumers: int = 2, lost: int = 0) -> Iterator[Load]:
        """Runs while the block runs; then publishing ends, and consuming when nothing waits, nothing is held, and no
        more than so many messages are lost.
        """
        makers = [(self._publish, number) for number in range(publishers)]
        takers = [(self._consume, number) for number in range(consumers)]
        self._threads = [
            threading.Thread(target=self._run, args=(work, number), daemon=True)
            for work, number in (*makers, *takers)
        ]
        for thread in self._threads:
            thread.start()
        try:
            until(lambda: len(self.deliveries) > 50 or self.failures, 15)
            yield self
            self._publishing.set()
            until(lambda: self.failures or (len(self.missing()) <= lost and not self._left()), 30)
        finally:
            self._publishing.set()
            self._consuming.set()
            for thread in self._threads:
                thread.join(30)
        assert not self.failures, self.failures[0]
        assert not any(thread.is_alive() for thread in self._threads)

    def report(self, what: str) -> None:
        """One line for those who run a test with `-s`."""
        print(
            f"{what}: {len(self.acknowledged)} published, {len(self.uncertain)} uncertain, lost connections "
            f"{dict(self.losses)}, lost {len(self.missing())}, delivered twice {len(self.doubled())}, longest "
            f"silence of a queue {max(self.silences.values(), default=0.0):.1f} s"
        )

    def missing(self) -> set[str]:
        return self.acknowledged - set(self.deliveries)

    def doubled(self) -> list[str]:
        return [name for name, count in self.deliveries.items() if count > 1]

    def more(self, count: int, seconds: float = 20) -> None:
        """Wait until so many more messages were delivered."""
        before = sum(self.deliveries.values())
        until(lambda: self.failures or sum(self.deliveries.values()) >= before + count, seconds)

    def more_of(self, queues: list[str], seconds: float) -> None:
        """Wait until something more was delivered from each of the queues."""
        begun = time.monotonic()
        until(lambda: self.failures or all(self._last.get(queue, 0) > begun for queue in queues), seconds)

    # -- threads

    def _run(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as exc:
            self.failures.append(exc)
            raise

    def _publish(self, number: int) -> None:
        rng, counter = random.Random(number), 0
        while not self._publishing.is_set():
            pending: list[str] = []
            try:
                with self._connect() as connection:
                    channel = connection.channel()
                    while not self._publishing.wait(PAUSE_SECONDS):
                        size = 8 if rng.random() < 0.1 else 1
                        queue = rng.choice(self._queues)
                        pending = [f"{queue}/{number}.{counter + i}" for i in range(size)]
                        counter += size
                        self._send(channel, rng, queue, pending)
                        self.acknowledged.update(pending)
                        pending = []
            except (OperationalError, *CONNECTION_ERRORS) as exc:
                self.uncertain.update(pending)
                self.losses["unreplicated" if isinstance(exc, NotReplicated) else "publisher"] += 1
                self._publishing.wait(0.05)

    def _send(self, channel: Any, rng: random.Random, queue: str, bodies: list[str]) -> None:
        if len(bodies) > 1:
            made = [channel.prepare_message(b, rng.randrange(10), "text/plain", "utf-8") for b in bodies]
            channel.publish_many([Publication(message, "", queue) for message in made])
            return
        extra = {"eta_timestamp": time.time() + DELAY_SECONDS} if rng.random() < 0.1 else {}
        producer = Producer(channel)
        producer.publish(
            bodies[0], routing_key=queue, priority=rng.randrange(10), content_type="text/plain", **extra
        )

    def _consume(self, number: int) -> None:
        holding: deque[tuple[float, Any]] = deque()

        def take(message: Any) -> None:
            now, queue = time.monotonic(), message.payload.partition("/")[0]
            self.deliveries[message.payload] += 1
            silence = now - self._last.get(queue, now)
            self.silences[queue] = max(silence, self.silences.get(queue, 0.0))
            self._last[queue] = now
            holding.append((now + HOLD_SECONDS, message))

        def settle() -> None:
            while holding and holding[0][0] <= time.monotonic():
                holding.popleft()[1].ack()

        while not self._consuming.is_set():
            try:
                with self._connect() as connection:
                    queues = [Queue(name) for name in self._queues]
                    consumer = Consumer(connection.channel(), queues, on_message=take)
                    consumer.qos(prefetch_count=PREFETCH)
                    consumer.consume()
                    while not self._consuming.is_set():
                        try:
                            connection.drain_events(timeout=0.02)
                        except TimeoutError:
                            pass
                        settle()
                    while holding:
                        settle()
                        self._consuming.wait(0.01)
                        time.sleep(0.01)
                    consumer.channel.flush()
            except (OperationalError, *CONNECTION_ERRORS):
                self.losses["consumer"] += 1
                settle()
                self._consuming.wait(0.1)
