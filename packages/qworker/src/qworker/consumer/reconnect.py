"""Connecting to the broker, and connecting again: the only place that knows what happens in between."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from qcore.connections import refusal_of
from qcore.errors import ImproperlyConfigured, OperationalError, WorkerShutdown
from qworker import bootsteps
from qworker.state import ACTIVE, SCHEDULED

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)

RETRY_STEP_SECONDS = 2.0
RETRY_MAX_SECONDS = 10.0
# A connection that is lost sooner is one that the broker does not let us use, for example as another worker has our
# name. The first one may be chance; from the second one on there is a pause before the next.
SHORT_LIFE_SECONDS = 2.0
# One that brought tasks before it was lost is one that the broker lets us use.
WORKED_STEP_SECONDS = 0.2
WORKED_MAX_SECONDS = 1.0


def run_until_stopped(c: Consumer) -> None:
    """Run the consumer's steps; after a lost connection stop them, repair the books, and run them again."""
    blueprint = c.blueprint
    while blueprint.state not in (bootsteps.CLOSE, bootsteps.TERMINATE):
        try:
            blueprint.start(c)
        except (WorkerShutdown, SystemExit, KeyboardInterrupt):
            raise
        except OSError as exc:
            if (
                getattr(exc, "errno", None) == 24
            ):  # too many open files: another connection would make it worse
                raise
            _lost(c, exc)
        except Exception as exc:
            if not isinstance(exc, c.broker_errors):
                raise
            _lost(c, exc)


def _lost(c: Consumer, exc: BaseException) -> None:
    conf = c.app.conf
    if c.blueprint.state in (bootsteps.CLOSE, bootsteps.TERMINATE):
        return
    if c.first_connection or isinstance(exc, OperationalError):
        raise exc
    if c.state.should_stop is not None:
        # Connecting again only to say goodbye would keep a stopping worker waiting for its broker.
        c.generation += 1
        c.broker_error = None
        c.controller.lifecycle.finish_without_broker(c)
    if not conf.broker_connection_retry:
        logger.critical(
            "The connection to the broker was lost (%r), and broker_connection_retry is off. The worker stops.",
            exc,
        )
        raise exc
    _tell(c, exc)
    c.generation += 1
    c.state.telling = set()
    c.send_task_event = None
    c.consuming = False
    if c.task_consumer is not None:
        # What still comes while the steps stop could not be answered; it is delivered again.
        c.task_consumer.on_message = _ignore
    drop_what_comes_again(c)
    c.blueprint.restart(c)
    close_quietly(c.connection)
    c.connection = None
    c.broker_error = None
    _pause_after_short_lives(c)


def _tell(c: Consumer, exc: BaseException) -> None:
    """Say why the worker connects again.

    Raises:
        ImproperlyConfigured: the broker refuses what the worker needs, and did so from the start.
    """
    refusal = refusal_of(exc)
    if refusal is None:
        logger.warning(
            "The connection to the broker was lost: %s: %s. The worker connects again; tasks that run go on.",
            type(exc).__name__,
            "a queue that it consumes was deleted" if type(exc).__name__ == "ConsumerCancelled" else exc,
        )
    elif c.on_ready is not None:
        raise ImproperlyConfigured(refusal) from exc
    else:
        logger.error("%s. The worker tries again; tasks that run go on.", refusal[0].upper() + refusal[1:])


def _ignore(message: Any) -> None:
    pass


def _pause_after_short_lives(c: Consumer) -> None:
    c.short_lives = c.short_lives + 1 if time.monotonic() - c.connected_at < SHORT_LIFE_SECONDS else 0
    if c.short_lives > 1:
        worked = c.state.processed > c.processed_before
        step, most = (
            (WORKED_STEP_SECONDS, WORKED_MAX_SECONDS) if worked else (RETRY_STEP_SECONDS, RETRY_MAX_SECONDS)
        )
        pause = min(step * (c.short_lives - 1), most)
        logger.warning(
            "The last %d connections were lost at once; the next in %g seconds.", c.short_lives, pause
        )
        _tick_for(c, pause)


def drop_what_comes_again(c: Consumer) -> None:
    """Forget requests of the lost connection that have not started: their messages are delivered again."""
    conf = c.app.conf
    c.trials.forget()
    if c.state.acknowledged is not None:
        for run in c.state.acknowledged.take():
            c.state.unacknowledged.add(run)
    for request in list(c.state.by_tag.values()):
        if request.acknowledged or c._answerable(request):
            continue
        c.state.returned.add(request.id)
        if request.phase is SCHEDULED:
            entry = c.eta_entries.pop(request.tag, None)
            if entry is not None:
                entry.cancel()
            for held in c.held.values():
                if request in held.waiting:
                    held.waiting.remove(request)
            c.state.forget(request)
        elif (
            request.phase is ACTIVE
            and request.strategy.acks_late
            and conf.worker_cancel_long_running_tasks_on_connection_loss
        ):
            logger.warning("Cancelling %s: it is delivered again.", request)
            request.cancel(c.pool, 15)
    for request in take_back(c):
        if not c._answerable(request):
            c.state.forget(request)
        else:
            request.execute_using_pool(c.pool)


def take_back(c: Consumer) -> list[Any]:
    """Requests that the pool has not started and will not start any more."""
    return [c.state.by_tag[tag] for tag in c.pool.take_back() if tag in c.state.by_tag]


def discard_revoked(c: Consumer) -> None:
    """End the revoked ones among the requests that the pool has not started."""
    for request in take_back(c):
        if not request.revoked():
            request.execute_using_pool(c.pool)


def connect(c: Consumer) -> Any:
    """A connection that works, tried as often as the settings allow.

    Raises:
        OperationalError: it cannot be made; the text names the broker.
        WorkerShutdown: the worker was told to stop meanwhile.
    """
    conf = c.app.conf
    retry = conf.broker_connection_retry
    if c.first_connection and conf.broker_connection_retry_on_startup is not None:
        retry = conf.broker_connection_retry_on_startup
    max_retries = conf.broker_connection_max_retries
    heartbeat = conf.broker_heartbeat
    tries = 0
    while True:
        connection = c.app.connection_for_read(heartbeat=heartbeat)
        try:
            connection.connect()
        except (*connection.connection_errors, OSError) as exc:
            tries += 1
            uri = connection.as_uri()
            close_quietly(connection)
            if not retry or (max_retries is not None and tries > max_retries):
                why = "retries are off" if not retry else f"tried {tries} times"
                raise OperationalError(
                    f"The worker cannot connect to the broker {uri}: {exc!r} ({why}). Is it running, and are the "
                    "address, user and password in broker_url right?"
                ) from exc
            _wait(c, uri, exc, tries, max_retries)
        else:
            c.first_connection = False
            c.connected_at = time.monotonic()
            c.processed_before = c.state.processed
            return connection


def _wait(c: Consumer, uri: str, exc: BaseException, tries: int, max_retries: int | None) -> None:
    pause = min(RETRY_STEP_SECONDS * tries, RETRY_MAX_SECONDS)
    logger.error(
        "consumer: Cannot connect to %s: %s. Trying again in %.2f seconds... (%s/%s)",
        uri,
        exc,
        pause,
        tries,
        "∞" if max_retries is None else max_retries,
    )
    _tick_for(c, pause)


def _tick_for(c: Consumer, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        # Tasks that run must not wait for the broker, nor a request to stop.
        c.controller.tick_offline(min(left, 0.5))
        if c.state.should_stop is not None or c.state.should_terminate is not None:
            c.controller.lifecycle.finish_without_broker(c)


def close_quietly(connection: Any) -> None:
    """Close a connection that may be broken."""
    if connection is None:
        return
    try:
        connection.release()
    except Exception:
        logger.debug("closing a connection to the broker failed", exc_info=True)
