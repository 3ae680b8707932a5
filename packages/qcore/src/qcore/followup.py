"""What a finished task sets in motion: callbacks, the next task of a chain, errbacks."""

from __future__ import annotations

from typing import Any

from qcore.canvas import maybe_signature
from qcore.canvas.failing import call_errbacks as errbacks
from qcore.canvas.failing import fail_followers


def start_next(app: Any, request: Any, value: Any) -> None:
    """Send the callbacks, in order, and the next task of the chain, each with the result as first argument."""
    origin: dict[str, Any] = {"parent_id": request.id, "root_id": request.root_id or request.id}
    priority = (request.delivery_info or {}).get("priority")
    if priority is not None and app.conf.task_inherit_parent_priority:
        origin["priority"] = priority
    for callback in request.callbacks or ():
        _start(request, maybe_signature(callback, app=app), (value,), origin)
    if request.chain:
        rest = list(request.chain)
        following = maybe_signature(rest.pop(), app=app)
        if rest:
            origin["chain"] = rest
        _start(request, following, (value,), origin)


def _start(request: Any, signature: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Send what follows; what follows an eager run is run eagerly."""
    if request.is_eager:
        signature.apply(args, **options)
    else:
        signature.apply_async(args, **options)


def fail_chain(app: Any, request: Any, exc: BaseException, traceback: str | None) -> None:
    """Record the failure for every later member of the chain of `request`."""
    fail_followers(app, request.chain, exc, traceback)


def call_errbacks(app: Any, request: Any, exc: BaseException, traceback: str | None) -> None:
    """Call or send each errback, in order; see `qcore.canvas.failing.call_errbacks`."""
    errbacks(app, request, exc, traceback, eager=bool(request.is_eager))
