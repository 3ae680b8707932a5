"""What runs in a pool child: qcore's task runner, with the pool's time limits around the body of tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from multiprocessing import current_process
from typing import Any

from qcore.execution.runner import TaskRunner
from qworker import rdb
from qworker.pools.limits import drive, guard


class ChildRunner(TaskRunner):
    """Lets a time limit reach the coroutine of an `async def` task where it waits."""

    def _run_coroutine(self, coroutine: Any) -> Any:
        return super()._run_coroutine(drive(coroutine))


def make_runner(app: Any, hostname: str, on_start: Callable[[], None] | None = None) -> TaskRunner:
    """The runner of one child.

    Args:
        app: The app, finalized.
        hostname: Node name of the worker.
        on_start: Called in the child once it is set up.
    """
    return ChildRunner(
        app, hostname, guard=guard, aguard=guard, on_start=partial(set_up_child, app, on_start)
    )


def set_up_child(app: Any, on_start: Callable[[], None] | None) -> None:
    """Open the child's own log file where its name asks for one, and tell the loader."""
    index = getattr(current_process(), "index", None)
    if index is not None:
        app.log.setup_in_child(index)
        rdb.install_signal_handler()
    app.loader.init_worker_process()
    if on_start is not None:
        on_start()
