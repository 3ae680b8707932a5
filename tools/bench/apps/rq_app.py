"""RQ: `rq worker-pool`. It forks a process for every job."""

from __future__ import annotations

import os
from collections.abc import Iterable

from redis import Redis
from rq import Queue

from bench import ledger

connection = Redis.from_url(os.environ["BENCH_BROKER"])
queue = Queue(os.environ["BENCH_QUEUE"], connection=connection)
_ttl = 500 if os.environ["BENCH_RESULTS"] else 0


def noop(number: int) -> int:
    ledger.mark(number)
    return number


def send(number: int) -> None:
    queue.enqueue(noop, number, result_ttl=_ttl)


def send_many(numbers: Iterable[int]) -> None:
    queue.enqueue_many([Queue.prepare_data(noop, (number,), result_ttl=_ttl) for number in numbers])


def call(number: int) -> object:
    job = queue.enqueue(noop, number, result_ttl=500)
    result = job.latest_result(timeout=30)
    return result.return_value if result is not None else None


def close() -> None:
    connection.close()
