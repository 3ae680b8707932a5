"""Automatic retries: the body of a task, wrapped so that listed exceptions try it again."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from qcore.errors import Ignore, Retry


def add_autoretry(task: Any) -> None:
    """Wrap the body so that the exceptions in `autoretry_for` retry the task; once (4ART)."""
    run = task.run
    if getattr(run, "__autoretry__", False):
        return
    if inspect.iscoroutinefunction(run):

        @functools.wraps(run)
        async def arun(*args: Any, **kwargs: Any) -> Any:
            try:
                return await run(*args, **kwargs)
            except (Ignore, Retry):
                raise
            except tuple(task.dont_autoretry_for):
                raise
            except tuple(task.autoretry_for) as exc:
                outcome = _autoretry(task, exc)
                if outcome is exc:
                    raise
                raise outcome from exc

        wrapper: Any = arun
    else:

        @functools.wraps(run)
        def srun(*args: Any, **kwargs: Any) -> Any:
            try:
                return run(*args, **kwargs)
            except (Ignore, Retry):
                raise
            except tuple(task.dont_autoretry_for):
                raise
            except tuple(task.autoretry_for) as exc:
                outcome = _autoretry(task, exc)
                if outcome is exc:
                    raise
                raise outcome from exc

        wrapper = srun
    wrapper.__autoretry__ = True
    if "__wrapped_fun__" not in task.__dict__:
        task.__dict__["__wrapped_fun__"] = run
    task.__dict__["run"] = wrapper


def _autoretry(task: Any, exc: BaseException) -> BaseException:
    """What to raise for `exc`: the retry, or the error that ends the retries."""
    options = dict(task.retry_kwargs)
    if task.retry_backoff and "countdown" not in options and "eta" not in options:
        options["countdown"] = task._retry_delay(task.request.retries or 0)
    try:
        retry: BaseException = task.retry(exc=exc, throw=False, **options)
    except BaseException as error:  # noqa: BLE001 - raised again by the caller, with the cause attached
        return error
    return retry
