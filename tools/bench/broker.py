"""Measure our transports beside kombu's own on the same server, in interleaved rounds; print medians and ratios.

Servers are started for the run; `--url` names one that is there instead. SQLite has no counterpart in kombu that
is comparable, so it is measured alone. An idle worker is one of `qcli worker` with two processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from servers import Servers

from bench import transports
from bench.libraries import LIBRARIES
from bench.processes import Worker
from bench.transports import Subject

OURS = {
    "redis": "qbrokers.redis:Transport",
    "amqp": "qbrokers.amqp:Transport",
    "sqlite": "qbrokers.sqlite:Transport",
}
STOCK = {"redis": "redis", "amqp": "pyamqp"}
READY_SECONDS = 60.0
SETTLE_SECONDS = 2.0
"""Until a worker that is ready has done all that belongs to its start."""


class Result(NamedTuple):
    """Medians of one measurement, and how many times better ours is; None where there is nothing beside it."""

    broker: str
    name: str
    unit: str
    ours: float
    stock: float | None
    ratio: float | None


class Step(NamedTuple):
    """One measurement."""

    name: str
    unit: str
    measure: Callable[[Subject], float]
    more_is_better: bool


def steps(broker: str, count: int, idle_seconds: float) -> list[Step]:
    """In this order: what is published first is consumed then."""
    publishing = [
        Step("publish", "/s", lambda s: transports.publish_single(s, count), True),
        Step("bulk publish", "/s", lambda s: transports.publish_bulk(s, count), True),
    ]
    if broker in STOCK:
        publishing.append(
            Step("kombu batch publish", "/s", lambda s: transports.publish_batch(s, count), True)
        )
    return [
        *publishing,
        Step("consume+ack", "/s", lambda s: transports.consume(s, len(publishing) * count), True),
        Step("through", "/s", lambda s: transports.through(s, count), True),
        Step("idle latency", "s", lambda s: transports.latency(s), False),
        Step("idle latency, 4 queues", "s", lambda s: transports.latency(s, queues=4), False),
        Step("idle consumer", "% CPU", lambda s: transports.idle(s, idle_seconds), False),
    ]


def compare(broker: str, url: str, count: int, rounds: int, idle_seconds: float) -> list[Result]:
    """Run everything for our transport and the stock one, in turns."""
    names = [OURS[broker], *([STOCK[broker]] if broker in STOCK else [])]
    subjects = [Subject(url, name, f"bench-{uuid4().hex[:8]}") for name in names]
    todo = steps(broker, count, idle_seconds)
    values: dict[tuple[str, str], list[float]] = {}
    for subject in subjects:
        transports.prepare(subject)
    try:
        for number in range(rounds):
            print(f"{broker}, round {number + 1}", file=sys.stderr)
            for step in todo:
                for subject in subjects:
                    values.setdefault((step.name, subject.transport), []).append(step.measure(subject))
    finally:
        for subject in subjects:
            transports.clean(subject)
    return [_result(broker, step, values, names) for step in todo]


def _result(
    broker: str, step: Step, values: dict[tuple[str, str], list[float]], names: Sequence[str]
) -> Result:
    ours, *stock = (statistics.median(values[step.name, name]) for name in names)
    if not stock:
        return Result(broker, step.name, step.unit, ours, None, None)
    ratio = ours / stock[0] if step.more_is_better else stock[0] / ours
    return Result(broker, step.name, step.unit, ours, stock[0], ratio)


def idle_worker(broker: str, url: str, seconds: float, directory: Path) -> Result:
    """Share of one CPU that a whole worker uses while there is nothing to do."""
    q, log = LIBRARIES["q"], directory / f"{broker}.log"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "BENCH_BROKER": url,
        "BENCH_RESULTS": "",
        "BENCH_QUEUE": f"bench-{uuid4().hex[:8]}",
    }
    program, *words = (word.format(queue=environment["BENCH_QUEUE"]) for word in q.worker)
    worker = Worker([str(q.python().parent / program), *words, "-l", "INFO"], environment, log)
    try:
        _wait_ready(worker, log)
        time.sleep(SETTLE_SECONDS)
        used, begun = worker.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        percent = 100 * (worker.cpu_seconds() - used) / (time.monotonic() - begun)
    finally:
        worker.stop()
    return Result(broker, "idle worker", "% CPU", percent, None, None)


def _wait_ready(worker: Worker, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while " ready." not in log.read_text(errors="replace"):
        if worker.exit_code is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not get ready: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def main(argv: Sequence[str]) -> int:
    options = _parse(argv)
    servers = Servers(own=True)
    results: list[Result] = []
    try:
        with tempfile.TemporaryDirectory(prefix="q-bench-") as directory:
            for broker, url in _urls(options, servers, Path(directory)):
                results += compare(broker, url, options.count, options.rounds, options.idle_seconds)
                results.append(idle_worker(broker, url, max(10.0, options.idle_seconds), Path(directory)))
    finally:
        servers.close()
    if options.json:
        print(json.dumps([result._asdict() for result in results], indent=2))
    else:
        print(_table(results))
    return 0 if results else 3


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench/broker", description=__doc__)
    parser.add_argument("--brokers", default=",".join(OURS), help=f"of {','.join(OURS)}")
    parser.add_argument("--url", help="one broker that is there, instead of those started for the run")
    parser.add_argument("--count", type=int, default=5000, help="messages per publishing round")
    parser.add_argument("--rounds", type=int, default=3, help="the median of these is shown")
    parser.add_argument("--idle-seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    options = parser.parse_args(argv)
    options.brokers = options.brokers.split(",") if options.url is None else [_scheme(options.url)]
    for name in options.brokers:
        if name not in OURS:
            parser.error(f"unknown broker {name!r}; there are {', '.join(OURS)}")
    return options


def _scheme(url: str) -> str:
    return url.partition(":")[0]


def _urls(options: argparse.Namespace, servers: Servers, directory: Path) -> list[tuple[str, str]]:
    if options.url is not None:
        return [(_scheme(options.url), options.url)]
    urls = []
    for broker in options.brokers:
        if broker == "sqlite":
            urls.append((broker, f"sqlite:///{directory}/broker.db"))
            continue
        found = servers.get(broker)
        if found.url is None:
            print(f"{found.title} is missing: {found.how}", file=sys.stderr)
        else:
            urls.append((broker, found.url))
    return urls


def _table(results: Sequence[Result]) -> str:
    lines = [f"{'broker':8}{'':24}{'ours':>12} {'kombu':>12}"]
    for result in results:
        stock = "" if result.stock is None else f"{result.stock:.4g}"
        ratio = "" if result.ratio is None else f"x {result.ratio:.2f}"
        lines.append(
            f"{result.broker:8}{result.name:24}{result.ours:12.4g} {stock:>12} {result.unit:6} {ratio}"
        )
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
