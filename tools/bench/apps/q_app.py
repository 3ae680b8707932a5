"""Ours: `qcli -A bench.apps.q_app worker`."""

from __future__ import annotations

import os
from collections.abc import Iterable

from bench import ledger
from qcore import App, group

app = App("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"] or None)
app.conf.update(
    task_default_queue=os.environ["BENCH_QUEUE"],
    task_ignore_result=not os.environ["BENCH_RESULTS"],
    task_acks_late=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.noop")
def noop(number: int) -> int:
    ledger.mark(number)
    return number


def send(number: int) -> None:
    noop.delay(number)


def send_many(numbers: Iterable[int]) -> None:
    group(noop.s(number) for number in numbers).apply_async()


def call(number: int) -> object:
    return noop.delay(number).get(timeout=30)


def close() -> None:
    app.close()
