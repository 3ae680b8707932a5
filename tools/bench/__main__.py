"""Measure ours and peers side by side, in interleaved rounds, and print medians with ratios."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from peers import PeerError
from servers import Servers

from bench import measure
from bench.libraries import LIBRARIES, Library
from bench.measure import BenchError, Stage
from bench.report import table

WORKLOADS = ("drain", "bulk", "trip", "start")
Job = tuple[str, partial[dict[str, float]]]


def main(argv: Sequence[str]) -> int:
    options = _parse(argv)
    libraries = [LIBRARIES[name] for name in options.libraries]
    servers = Servers(own=True)
    try:
        found = {name: servers.get(name) for name in {"redis", *options.brokers}}
        for server in found.values():
            if server.url is None:
                print(f"{server.title} is missing: {server.how}", file=sys.stderr)
        if found["redis"].url is None:
            return 3
        amqp = found["amqp"].url if "amqp" in found else None
        with tempfile.TemporaryDirectory(prefix="q-bench-") as directory:
            stage = Stage(found["redis"].url, amqp, Path(directory), options.prefetch)
            brokers = [name for name in options.brokers if found[name].url]
            return _measure(options, libraries, brokers, stage)
    finally:
        servers.close()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    peers = [name for name in LIBRARIES if name != "q"]
    parser = argparse.ArgumentParser(prog="tools/bench/run", description=__doc__)
    parser.add_argument(
        "--peers", default="celery", help=f"comma-separated, of {', '.join(peers)}; '' for none"
    )
    parser.add_argument("--without-ours", action="store_true", help="measure the peers alone")
    parser.add_argument("--brokers", default="redis,amqp", help="redis,amqp")
    parser.add_argument("--only", default=",".join(WORKLOADS), help=f"of {','.join(WORKLOADS)}")
    parser.add_argument("--tasks", type=int, help="tasks of a drain (10000; quick: 2000)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of these is shown")
    parser.add_argument("--prefetch", type=int, default=4, help="worker_prefetch_multiplier of both (4)")
    parser.add_argument("--quick", action="store_true", help="fewer tasks and calls")
    parser.add_argument("--json", action="store_true", help="all values instead of the table")
    options = parser.parse_args(argv)
    ours = [] if options.without_ours else ["q"]
    options.libraries = ours + [name for name in options.peers.split(",") if name]
    options.brokers, options.only = options.brokers.split(","), options.only.split(",")
    options.tasks = options.tasks or (2_000 if options.quick else 10_000)
    options.calls = 200 if options.quick else 500
    for name in options.libraries:
        if name not in LIBRARIES:
            parser.error(f"unknown library {name!r}; there are {', '.join(LIBRARIES)}")
    return options


def _measure(
    options: argparse.Namespace, libraries: Sequence[Library], brokers: Sequence[str], stage: Stage
) -> int:
    rows: dict[str, dict[str, list[float]]] = {}
    faults: list[str] = []
    for library in libraries:
        try:
            library.python()
        except PeerError as error:
            faults.append(f"{library.name} cannot be installed: {error}")
    for number in range(options.rounds):
        order = libraries if number % 2 == 0 else libraries[::-1]
        for name, library, job in _jobs(options, order, brokers, stage):
            print(f"round {number + 1}, {library.name}, {name}", file=sys.stderr)
            try:
                values = job()
            except BenchError as error:
                faults.append(f"round {number + 1}, {name}: {error}")
                continue
            for key, value in values.items():
                row = f"{name}: {key}"
                rows.setdefault(row, {}).setdefault(library.name, []).append(value)
    if options.json:
        print(
            json.dumps(
                {"time": time.time(), "tasks": options.tasks, "rows": rows, "faults": faults}, indent=1
            )
        )
    else:
        print(table(rows, [library.name for library in libraries]))
        if len(libraries) > 1:
            print(f"ratio: how many times better {libraries[0].name} is than the library to its left")
        for library in libraries:
            if library.note:
                print(f"{library.name}: {library.note}")
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return int(bool(faults))


def _jobs(
    options: argparse.Namespace, libraries: Sequence[Library], brokers: Sequence[str], stage: Stage
) -> Iterator[tuple[str, Library, partial[dict[str, float]]]]:
    """Every measurement of one round; the libraries take turns within each."""
    for broker in brokers:
        able = [library for library in libraries if broker in library.brokers]
        for results in (False, True):
            if "drain" in options.only:
                name = f"{broker}, results {'on' if results else 'off'}"
                for library in able:
                    run = partial(measure.enqueue_and_drain, library, stage, broker, results, options.tasks)
                    yield name, library, run
        for library in able:
            if "bulk" in options.only:
                yield broker, library, partial(measure.bulk, library, stage, broker, options.tasks)
        for library in able:
            if "trip" in options.only:
                yield (
                    broker,
                    library,
                    partial(measure.round_trip, library, stage, broker, options.calls),
                )
    for library in libraries:
        if "start" in options.only:
            yield "start", library, partial(measure.start_up, library)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
