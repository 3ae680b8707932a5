"""Messages that come a second time: join them with the run that is on, or done, instead of running them again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from qcore import states
from qworker.state import run_of

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer
    from qworker.request import Request

logger = logging.getLogger(__name__)


def settle_redelivery(c: Consumer, request: Request) -> bool:
    """True when `request`, a redelivery, needs no run; its message is then dealt with.

    A run whose connection was lost cannot acknowledge its message; the broker delivers that again. When it comes to
    the same worker, it becomes the message of the run that is on, or is acknowledged when the run is done.
    """
    running = c.state.requests.get(request.id)
    if running is not None and running.generation != request.generation:
        if running.acknowledged:
            request.acknowledge()
        else:
            running.message = request.message
            running.generation = request.generation
        logger.info("%s was delivered again while it runs here: it is not run twice.", request.humaninfo())
        return True
    run = run_of(request.headers)
    if run in c.state.unacknowledged:
        c.state.unacknowledged.discard(run)
        request.acknowledge()
        logger.info(
            "%s was delivered again after it had ended here: it is not run twice.", request.humaninfo()
        )
        return True
    if request.strategy.deduplicate and _has_succeeded(c, request):
        request.acknowledge()
        logger.info(
            "%s was delivered again and has succeeded before: it is not run twice.", request.humaninfo()
        )
        return True
    return False


def _has_succeeded(c: Consumer, request: Request) -> bool:
    if request.id in c.state.successful:
        return True
    backend = request.task.backend
    if not getattr(backend, "persistent", False):
        return False
    try:
        return bool(backend.get(request.id).status == states.SUCCESS)
    except Exception:
        # The store is away: better a second run than none.
        logger.exception("Cannot look up whether %s has succeeded before; it is run.", request.humaninfo())
        return False
