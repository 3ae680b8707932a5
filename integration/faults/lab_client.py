"""A client of either side: `lab_client.py lab|lab_celery FIRST LAST`. It sends a few tasks, waits for one, and so on;
every seventh waits for its time. In the end it has got all results.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

PORTION = 10
COUNTDOWN_SECONDS = 3
PATIENCE_SECONDS = 150.0


def main(module: str, first: int, last: int) -> None:
    late = importlib.import_module(module).late
    errors: list[str] = []
    sent: list[Any] = []
    for number in range(first, last):
        wait = COUNTDOWN_SECONDS if number % 7 == 0 else None
        sent.append(
            insist(lambda n=number, w=wait: late.apply_async((n,), {"seconds": 0.01}, countdown=w), errors)
        )
        if number % PORTION == 1 and wait is None:
            insist(sent[-1].get, errors)
    print("sent", flush=True)
    for number, result in enumerate(sent, first):
        value = insist(result.get, errors)
        assert value == number, f"task {number} has the result {value!r}"
    print("errors", len(errors), sorted(set(errors)), flush=True)
    print("all results", flush=True)


def insist(action: Callable[..., Any], errors: list[str]) -> Any:
    """Call it until it raises nothing: what a program has to do whose client gives up when Redis restarts."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    getting = getattr(action, "__name__", "") == "get"
    while True:
        try:
            # A task that failed is told from a client that failed: its error is a value here.
            return action(timeout=10.0, propagate=False) if getting else action()
        except Exception as exc:
            if time.monotonic() > deadline:
                raise
            errors.append(f"{type(exc).__module__}.{type(exc).__name__}: {exc}"[:120])
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
