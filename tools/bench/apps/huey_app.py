"""huey: `huey_consumer bench.apps.huey_app.huey`.

It takes a task off the queue before it runs it: a crash loses it.
"""

from __future__ import annotations

import os

from huey import RedisHuey

from bench import ledger

huey = RedisHuey(
    os.environ["BENCH_QUEUE"], url=os.environ["BENCH_BROKER"], results=bool(os.environ["BENCH_RESULTS"])
)


@huey.task()
def noop(number: int) -> int:
    ledger.mark(number)
    return number


def send(number: int) -> None:
    noop(number)


send_many = None


def call(number: int) -> object:
    return noop(number).get(blocking=True, timeout=30, backoff=1, max_delay=0.001)


def close() -> None:
    huey.storage.close()
