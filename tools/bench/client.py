"""What a client does, timed inside the library's own environment.

`python -m bench.client MODULE ACTION FIRST COUNT` prints one JSON object. Times are seconds; the
process's start and first connection are not in them.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

WARM_UP = 20
"""Calls before the clock starts; they take the task numbers before FIRST."""


def main(argv: Sequence[str]) -> int:
    module, action, first, count = argv[0], argv[1], int(argv[2]), int(argv[3])
    app = importlib.import_module(f"bench.apps.{module}")
    numbers = range(first, first + count)
    try:
        print(json.dumps({"one": one, "bulk": bulk, "trip": trip}[action](app, numbers)))
    finally:
        app.close()
    return 0


def one(app: Any, numbers: range) -> dict[str, float]:
    for number in range(numbers.start - WARM_UP, numbers.start):
        app.send(number)
    started, cpu = time.perf_counter(), time.process_time()
    for number in numbers:
        app.send(number)
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def bulk(app: Any, numbers: range) -> dict[str, float] | None:
    if app.send_many is None:
        return None
    app.send_many(range(numbers.start - WARM_UP, numbers.start))
    started, cpu = time.perf_counter(), time.process_time()
    app.send_many(numbers)
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def trip(app: Any, numbers: range) -> dict[str, list[float]]:
    """One call after the other on an idle worker; each from before the call to after its result is here."""
    for number in range(numbers.start - WARM_UP, numbers.start):
        app.call(number)
    seconds = []
    for number in numbers:
        started = time.perf_counter()
        if app.call(number) != number:
            raise SystemExit(f"call({number}) returned something else")
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
