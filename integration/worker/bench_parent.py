"""Benchmark: what the worker's main process does per task, without broker and children.

Run it as a script: it prints microseconds per task for receipt, dispatch and outcome together.

    python integration/worker/bench_parent.py [number of tasks] [--profile]
"""

from __future__ import annotations

import cProfile
import gc
import os
import pstats
import sys
import time
from typing import Any

from qcore import App
from qcore.execution.records import Outcome
from qworker.pools.contract import Work
from qworker.pools.solo import Pool as SoloPool
from qworker.worker import WorkController


class EchoPool(SoloPool):
    """Says of every job that it has succeeded, when it is flushed."""

    name = "echo"

    def start(self) -> None:
        self.works: list[Work] = []

    def submit(self, work: Work) -> None:
        self.works.append(work)

    def flush(self) -> None:
        works, self.works = self.works, []
        events, now, pid = self._reports._events, time.monotonic(), os.getpid()
        for work in works:
            events.on_accepted(work.tag, pid, now)
            events.on_done(work.tag, Outcome(work.payload.id, "succeeded", 0.00001, "3"), pid)

    def take_back(self) -> list[int]:
        return []


def make_messages(app: App, channel: Any, count: int) -> list[dict[str, Any]]:
    """Raw messages as the memory transport keeps them."""
    task = app.tasks["bench.add"]
    task.delay(1, 2)
    raw = channel._get("celery")
    messages = []
    for number in range(count):
        copy = dict(raw)
        copy["headers"] = {**raw["headers"], "id": f"id-{number:08d}-0000-0000-0000-000000000000"}
        copy["properties"] = {**raw["properties"], "delivery_tag": f"tag-{number}"}
        messages.append(copy)
    return messages


def main() -> None:
    count = next((int(word) for word in sys.argv[1:] if word.isdigit()), 20_000)
    app = App("bench", broker="memory://", backend="cache+memory://", task_ignore_result=True)

    @app.task(name="bench.add")
    def add(x: int, y: int) -> int:
        return x + y

    worker = WorkController(
        app, pool=EchoPool, concurrency=4, without_mingle=True, without_gossip=True, without_heartbeat=True
    )
    done = []

    def measure(consumer: Any) -> None:
        channel = consumer.task_consumer.channel
        raws = make_messages(app, channel, count)
        receive = consumer.task_consumer._receive_callback
        gc.collect()
        profile = cProfile.Profile() if "--profile" in sys.argv else None
        if profile:
            profile.enable()
        started = time.perf_counter()
        for start in range(0, count, 100):
            for raw in raws[start : start + 100]:
                receive(raw)
            consumer.end_of_tick()
        seconds = time.perf_counter() - started
        if profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        done.append(seconds)
        worker.request_stop()

    worker.ready_callbacks.append(measure)
    worker.start()
    print(
        f"{done[0] / count * 1e6:.1f} us per task, {count / done[0]:.0f} tasks/s, {worker.state.processed} done"
    )


if __name__ == "__main__":
    main()
