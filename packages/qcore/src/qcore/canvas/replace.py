"""What takes the place of a running task: `Task.replace`."""

from __future__ import annotations

from typing import Any

from qcore.errors import ImproperlyConfigured

from .chains import chain
from .groups import group
from .signatures import Signature, as_signature


def replacement(task: Any, request: Any, sig: Signature[Any]) -> Signature[Any]:
    """`sig` with the id, group, chord, remaining chain and links of the running task.

    Args:
        task: the running task.
        request: its request.
        sig: what runs instead; a group is collected into a list by `celery.accumulate`.

    Raises:
        ImproperlyConfigured: `sig` belongs to a chord already, or is an empty workflow.
    """
    if sig.options.get("chord"):
        raise ImproperlyConfigured("a signature that replaces a task must not be part of a chord")
    if isinstance(sig, (chain, group)) and not len(sig):
        raise ImproperlyConfigured(f"a task cannot be replaced by an empty {sig.subtask_type}")
    found: Signature[Any] = sig.clone()
    if isinstance(found, chain) and len(found) == 1:
        found = chain.join((found,), app=task.app)
    if _ends_in_group(found):
        collect: Signature[Any] = Signature("celery.accumulate", kwargs={"index": 0}, app=task.app)
        found = chain.join((found, collect), app=task.app)
    for callback in request.callbacks or ():
        found.link(as_signature(callback, task.app))
    for errback in request.errbacks or ():
        found.link_error(as_signature(errback, task.app))
    nesting = (request.replaced_task_nesting or 0) + 1
    rest = [as_signature(follower, task.app).clone() for follower in request.chain or ()]
    for follower in rest:
        follower.set(replaced_task_nesting=nesting)
    found.freeze(
        request.id,
        group_id=request.group,
        chord=request.chord,
        root_id=request.root_id,
        group_index=request.group_index,
    )
    options: dict[str, Any] = {"replaced_task_nesting": nesting, "root_id": request.root_id}
    if rest:
        options["chain"] = rest
    if request.parent_id:
        options["parent_id"] = request.parent_id
    return found.set(**options)


def _ends_in_group(sig: Signature[Any]) -> bool:
    last = sig.tasks[-1] if isinstance(sig, chain) else sig
    if isinstance(last, group):
        return True
    body = last.kwargs.get("body") if last.subtask_type == "chord" else None
    return isinstance(body, Signature) and _ends_in_group(body)
