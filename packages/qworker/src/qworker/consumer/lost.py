"""Sending a task again whose process died (`retry_on_worker_lost`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

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
        signature.apply_async()
    except Exception:
        # Neither body nor broker can be trusted here: without a next try the task fails.
        logger.exception("Cannot send %s again after its process died.", request.humaninfo())
        return False
    request.acknowledge()
    request.send_event("task-retried", exception=repr(exc), traceback=None)
    logger.info("%s is sent again because its process died.", request.humaninfo())
    return True
