"""The measurements: each takes a library and a stage, runs once, and returns plain numbers.

A drain fills the queue first and starts the worker then; its rate counts from the first task's run to the
last one's, as the tasks note them themselves, so start-up does not count. A run in which a task was lost or
ran twice is no measurement: it fails.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.redis import Connection

from bench import client, ledger
from bench.libraries import Library
from bench.processes import Worker

POLL_SECONDS = 0.02
CLIENT_SECONDS = 300.0
DRAIN_SECONDS = 300.0
SETTLE_SECONDS = 0.5
"""How long to watch for duplicates after the last task, and before memory is read."""
TOOLS = Path(__file__).resolve().parents[1]


class BenchError(Exception):
    """A run that gives no number; the text says why and where the worker's log is."""


@dataclass
class Stage:
    """Where the runs take place: servers of this run, and a directory for ledgers and logs."""

    redis_url: str
    amqp_url: str | None
    directory: Path
    prefetch: int = 4
    _names: itertools.count[int] = field(default_factory=itertools.count)

    def environment(self, broker: str, results: bool) -> tuple[dict[str, str], Path]:
        """A clean broker, a queue and a ledger path of their own for one run."""
        with Connection(int(self.redis_url.split(":")[2].split("/")[0])) as redis:
            redis.call("FLUSHALL")
        url = self.redis_url if broker == "redis" else self.amqp_url
        if url is None:
            raise BenchError("no RabbitMQ")
        number = next(self._names)
        path = self.directory / f"ledger-{number}"
        env = {
            "PYTHONPATH": str(TOOLS),
            "BENCH_BROKER": url,
            "BENCH_RESULTS": self.redis_url if results else "",
            "BENCH_QUEUE": f"bench{number}",
            "BENCH_PREFETCH": str(self.prefetch),
            ledger.VARIABLE: str(path),
        }
        return {**os.environ, **env}, path


def enqueue_and_drain(
    library: Library, stage: Stage, broker: str, results: bool, tasks: int
) -> dict[str, float]:
    """Send `tasks` no-ops one by one to nobody, then let a worker with two processes drain them."""
    env, path = stage.environment(broker, results)
    total = tasks + client.WARM_UP
    ledger.create(path, total)
    sent = _client(library, env, "one", tasks)
    worker = _start(library, env, path)
    try:
        cpu_seconds, reading = _wait(worker, path, total)
        pss = worker.pss_bytes()
    finally:
        worker.stop()
    _exactly_once(library, reading, worker, path)
    if results and library.name in ("q", "celery"):
        _results_are_there(library, stage, total)
    path.unlink()
    return {
        "enqueue_per_second": tasks / sent["seconds"],
        "enqueue_cpu_us": 1e6 * sent["cpu_seconds"] / tasks,
        "drain_per_second": reading.per_second,
        "worker_cpu_us": 1e6 * cpu_seconds / total,
        "worker_pss_mb": pss / 1e6,
    }


def bulk(library: Library, stage: Stage, broker: str, tasks: int) -> dict[str, float]:
    """Send `tasks` no-ops by the library's bulk call; {} where it has none."""
    env, path = stage.environment(broker, results=False)
    sent = _client(library, env, "bulk", tasks)
    path.unlink(missing_ok=True)
    return {"bulk_per_second": tasks / sent["seconds"]} if sent else {}


def round_trip(library: Library, stage: Stage, broker: str, calls: int) -> dict[str, float]:
    """Call and wait for the result, one after the other, on an idle worker."""
    env, path = stage.environment(broker, results=True)
    ledger.create(path, calls + client.WARM_UP)
    worker = _start(library, env, path)
    try:
        seconds = sorted(_client(library, env, "trip", calls)["seconds"])
        time.sleep(SETTLE_SECONDS)
        reading = ledger.read(path)
    finally:
        worker.stop()
    _exactly_once(library, reading, worker, path)
    path.unlink()
    return {
        "trip_p50_ms": 1e3 * seconds[len(seconds) // 2],
        "trip_p99_ms": 1e3 * seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))],
    }


def start_up(library: Library) -> dict[str, float]:
    """Import (less a bare Python) and `--version`, each the best of three processes: noise only ever adds."""
    python = str(library.python())
    program = _program(library, library.version)
    bare = _best_seconds([python, "-c", "pass"])
    return {
        "import_ms": 1e3 * (_best_seconds([python, "-c", library.imports]) - bare),
        "version_ms": 1e3 * _best_seconds(program),
    }


def _best_seconds(argv: Sequence[str]) -> float:
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd="/")
        taken.append(time.perf_counter() - started)
    return min(taken)


def _program(library: Library, words: Sequence[str], **values: str) -> list[str]:
    binary = library.python().parent / words[0]
    return [str(binary), *(word.format(**values) for word in words[1:])]


def _client(library: Library, env: dict[str, str], action: str, count: int) -> Any:
    argv = [str(library.python()), "-m", "bench.client", library.module, action]
    argv += [str(client.WARM_UP), str(count)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False)
    if done.returncode:
        raise BenchError(f"{library.name}: client {action} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _start(library: Library, env: dict[str, str], path: Path) -> Worker:
    argv = _program(library, library.worker, queue=env["BENCH_QUEUE"], broker=env["BENCH_BROKER"])
    return Worker(argv, env, _log(path))


def _log(path: Path) -> Path:
    return path.with_suffix(".log")


def _wait(worker: Worker, path: Path, total: int) -> tuple[float, ledger.Reading]:
    """Until every task ran, and a moment longer.

    Returns:
        CPU seconds of the worker between its first and last task, and the ledger.
    """
    deadline = time.monotonic() + DRAIN_SECONDS
    before: float | None = None
    while True:
        reading = ledger.read(path)
        if before is None and reading.done:
            before = worker.cpu_seconds()
        if reading.done == total or worker.exit_code is not None or time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    after = worker.cpu_seconds()
    time.sleep(SETTLE_SECONDS)
    return after - (before or 0.0), ledger.read(path)


def _exactly_once(library: Library, reading: ledger.Reading, worker: Worker, path: Path) -> None:
    if reading.done == reading.tasks and not reading.duplicates:
        return
    lost = reading.tasks - reading.done
    tail = _log(path).read_text(errors="replace").strip()[-1500:]
    raise BenchError(
        f"{library.name}: {lost} of {reading.tasks} tasks did not run, {reading.duplicates} ran twice "
        f"(worker's exit code {worker.exit_code}; its log ends: {tail})"
    )


def _results_are_there(library: Library, stage: Stage, total: int) -> None:
    """Every task's record, under the key that both use."""
    count = "return #redis.call('keys', 'celery-task-meta-*')"
    with Connection(int(stage.redis_url.split(":")[2].split("/")[0])) as redis:
        stored = redis.call("EVAL", count, "0")
    if stored != total:
        raise BenchError(f"{library.name}: {stored} results stored for {total} tasks")
