"""The tasks that both applications register, under the same names and with the same code."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

HOLD_SECONDS = 30.0
POLL_SECONDS = 0.02


def register(app: Any) -> dict[str, Any]:
    """Register them with `app`, ours or Celery's.

    Returns:
        Each task by its short name.
    """

    @app.task(name="interop.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(name="interop.total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="interop.trail", bind=True)
    def trail(self: Any, before: list[str]) -> list[str]:
        """Adds the name of the node that runs it."""
        return [*before, self.request.hostname]

    @app.task(name="interop.node", bind=True)
    def node(self: Any, _: object = None) -> str:
        return str(self.request.hostname)

    @app.task(name="interop.fail")
    def fail() -> None:
        raise ValueError("broken", 7)

    @app.task(name="interop.retrying", bind=True, max_retries=3)
    def retrying(self: Any, times: int) -> int:
        """Asks to be tried again `times` times, then returns how often it was."""
        if self.request.retries < times:
            raise self.retry(countdown=0.05)
        return int(self.request.retries)

    @app.task(name="interop.touch")
    def touch(*args: object) -> None:
        """Writes its arguments but the last to the file that the last one names."""
        *values, path = args
        Path(str(path)).write_text(repr(values))

    @app.task(name="interop.hold")
    def hold(started: str, release: str) -> str:
        """Makes the file `started`, and returns once `release` exists."""
        Path(started).touch()
        deadline = time.monotonic() + HOLD_SECONDS
        while not Path(release).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(release)
            time.sleep(POLL_SECONDS)
        return "released"

    return {
        task.name.rpartition(".")[2]: task for task in (add, total, trail, node, fail, retrying, touch, hold)
    }
