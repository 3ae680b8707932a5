"""Bodies that are coroutines. asyncio, a good part of the start-up, is loaded here with the first of them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any


def is_coroutine(value: object) -> bool:
    """Whether a body returned something to await."""
    return isinstance(value, Coroutine)


def run_here(coroutine: Any) -> Any:
    """Run a coroutine to its end; inside a running event loop in a thread of its own."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(context.run, asyncio.run, coroutine).result()


async def await_body(function: Any, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a body on the event loop, or in a thread when `function`, what the user wrote, is a plain one."""
    if iscoroutinefunction(function):
        return await body(*args, **kwargs)
    import asyncio

    value = await asyncio.to_thread(body, *args, **kwargs)
    return await value if is_coroutine(value) else value
