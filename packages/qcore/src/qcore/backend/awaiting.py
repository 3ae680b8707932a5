"""Wait for a record on an event loop: what a store watches in a thread is handed over to the loop."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Callable

from qcore.errors import TimeoutError

from .contract import OnRecord
from .record import ResultRecord


async def await_record(
    watch: Callable[[str, OnRecord], Callable[[], None]], task_id: str, timeout: float | None
) -> ResultRecord:
    """The terminal record of a task.

    Args:
        watch: calls its second argument, from any thread, when the task is ready; returns how to stop that.
        task_id: what to wait for.
        timeout: seconds; None waits for ever.

    Raises:
        TimeoutError: `qcore.errors.TimeoutError`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ResultRecord] = loop.create_future()

    def settle(record: ResultRecord) -> None:
        if not future.done():
            future.set_result(record)

    def arrived(record: ResultRecord) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle, record)

    stop = watch(task_id, arrived)
    try:
        return await asyncio.wait_for(future, timeout)
    except builtins.TimeoutError as exc:
        raise TimeoutError(f"The operation timed out: task {task_id} is not ready") from exc
    finally:
        stop()
