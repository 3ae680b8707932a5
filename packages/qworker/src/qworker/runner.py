"""What runs in a pool child: qcore's task runner, with the pool's time limits around the body of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qcore.execution.runner import TaskRunner
from qworker.pools.limits import guard


def make_runner(app: Any, hostname: str, on_start: Callable[[], None] | None = None) -> TaskRunner:
    """The runner of one child.

    Args:
        app: The app, finalized.
        hostname: Node name of the worker.
        on_start: Called in the child once it is set up.
    """
    return TaskRunner(app, hostname, guard=guard, on_start=on_start)
