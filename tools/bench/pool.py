"""How fast the prefork pool moves jobs that do nothing.

Usage: python tools/bench/pool.py [--json] [--jobs 200000] [--children 2] [--payload small|job]
"""

from __future__ import annotations

import argparse
import json
import statistics
from time import perf_counter

from qcore.execution.records import Job, Outcome
from qworker.pools.contract import PoolOptions, Work
from qworker.pools.prefork import Pool


class NoopRunner:
    """Returns what it is given."""

    def start(self) -> None: ...

    def run(self, payload: object) -> object:
        return payload

    async def arun(self, payload: object) -> object:
        return payload

    def flush(self) -> None: ...

    def stop(self) -> None: ...


class JobRunner(NoopRunner):
    """Answers a `Job` by an `Outcome`, as a task runner does."""

    def run(self, payload: object) -> object:
        assert isinstance(payload, Job)
        return Outcome(payload.id, "succeeded", 0.0, "None")


class Counter:
    """Counts what is done."""

    def __init__(self) -> None:
        self.finished = 0

    def on_accepted(self, tag: int, pid: int, started: float) -> None: ...

    def on_done(self, tag: int, result: object, pid: int) -> None:
        self.finished += 1

    def on_lost(self, tag: int, pid: int, exitcode: int | None, started: bool) -> None:
        raise SystemExit(f"job {tag} was lost")

    def on_timeout(self, tag: int, soft: bool, limit: float) -> None:
        raise SystemExit(f"job {tag} timed out")

    def on_fatal(self, reason: str) -> None:
        raise SystemExit(reason)


def sample_job(number: int) -> Job:
    """A job with the headers of a real message."""
    task_id = f"{number:08d}-3f4b-4c55-9a7e-0123456789ab"
    headers: dict[str, object] = dict.fromkeys(
        ("shadow", "eta", "expires", "group", "group_index", "parent_id", "stamps", "stamped_headers")
    )
    headers |= {"lang": "py", "task": "proj.tasks.add", "id": task_id, "retries": 0, "root_id": task_id}
    headers |= {"timelimit": [None, None], "argsrepr": "(2, 2)", "kwargsrepr": "{}", "origin": "gen1@host"}
    return Job(
        id=task_id,
        name="proj.tasks.add",
        headers=headers,
        body=b'[[2, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
        content_type="application/json",
        content_encoding="utf-8",
        properties={"correlation_id": task_id, "reply_to": "", "priority": 0, "delivery_mode": 2},
        delivery_info={"exchange": "", "routing_key": "celery", "redelivered": False, "priority": 0},
        hostname="q@host",
        received=0.0,
    )


def throughput(pool: Pool, counter: Counter, jobs: int, payload: str, prefetch: int = 4096) -> float:
    """Jobs per second with at most `prefetch` out, submitted as a consumer does."""
    submitted = counter.finished
    goal = submitted + jobs
    payloads = [sample_job(i) if payload == "job" else i for i in range(1000)]
    began = perf_counter()
    while counter.finished < goal:
        while submitted < goal and submitted - counter.finished < prefetch:
            pool.submit(Work(submitted, "noop", payloads[submitted % 1000]))
            submitted += 1
        pool.flush()
        pool.poll(1.0)
    return jobs / (perf_counter() - began)


def round_trip(pool: Pool, counter: Counter, jobs: int, payload: str) -> float:
    """Median seconds of one job alone."""
    times = []
    for number in range(jobs):
        goal = counter.finished + 1
        work = Work(10_000_000 + number, "alone", sample_job(number) if payload == "job" else number)
        began = perf_counter()
        pool.submit(work)
        pool.flush()
        while counter.finished < goal:
            pool.poll(1.0)
        times.append(perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--payload", choices=("small", "job"), default="small")
    choices = parser.parse_args()
    counter = Counter()
    runner = JobRunner if choices.payload == "job" else NoopRunner
    pool = Pool(runner, choices.children, counter, PoolOptions())
    pool.start()
    throughput(pool, counter, 1000, choices.payload)
    figures = {
        "jobs_per_second": round(throughput(pool, counter, choices.jobs, choices.payload)),
        "round_trip_microseconds": round(round_trip(pool, counter, 2000, choices.payload) * 1e6, 1),
        "children": choices.children,
        "payload": choices.payload,
    }
    pool.join(10)
    print(json.dumps(figures) if choices.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
