"""Tasks whose process died: sent again (`retry_on_worker_lost`), returned (`reject_on_worker_lost`), or given up."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from qcore.errors import WorkerLostError
from qcore.refusal import following
from qworker.deadletters import too_many_lost

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer
    from qworker.request import Request

logger = logging.getLogger(__name__)


def retry_lost(c: Consumer, request: Request, exc: BaseException) -> bool:
    """Send the task again after its retry delay, with one retry more; False when it has none left."""
    task = request.task
    if task.max_retries is not None and request.retries >= task.max_retries:
        return False
    from qcore.execution.execution import request_of
    from qcore.message import check_body

    job = request.job()
    try:
        payload = c.app.amqp.codec.decode(job.body, job.content_type, job.content_encoding)
        args, kwargs, embed = check_body(payload)
        context = request_of(job, args, kwargs, embed)
        context.called_directly = False
        signature = task.signature_from_request(
            context, args, kwargs, countdown=task._retry_delay(request.retries), retries=request.retries + 1
        )
        with following():
            signature.apply_async()
    except Exception:
        # Neither body nor broker can be trusted here: without a next try the task fails.
        logger.exception("Cannot send %s again after its process died.", request.humaninfo())
        return False
    request.acknowledge()
    request.send_event("task-retried", exception=repr(exc), traceback=None)
    logger.info("%s is sent again because its process died.", request.humaninfo())
    return True


def return_lost(c: Consumer, request: Request, how: str) -> None:
    """Put the message back with one lost delivery more; the last one that it may have ends the task.

    Args:
        c: The consumer.
        request: Its message is not answered yet.
        how: How the process died, for the error.
    """
    if request.acknowledged:
        return
    request.acknowledged = True
    if not c._answerable(request):
        return  # the broker delivers it again
    message = request.message
    lost = c.dead_letters.recorded(message) + 1
    if lost < c.admission.max_deliveries:
        c.dead_letters.put_back(message, lost, c.hostname)
        logger.warning(
            "%s goes back to its queue; lost deliveries: %d, after %d it is put aside.",
            request.humaninfo(),
            lost,
            c.admission.max_deliveries,
        )
        request.send_event("task-rejected", requeue=True)
        return
    exc = WorkerLostError(f"{too_many_lost(lost)} ({how})")
    logger.error("%s: %s", request.humaninfo(), exc)
    c.settle(
        request, "FAILURE", exc, partial(c.put_aside, message, str(exc), request.generation, lost, c.hostname)
    )
    request.send_event("task-failed", exception=repr(exc), traceback=None)
