"""Step Tasks: the consumer of the task queues."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qworker import bootsteps
from qworker.consumer.consumer import outlives_connection
from qworker.consumer.prefetch import Prefetch
from qworker.state import RecentRuns
from qworker.strategy import strategy_for

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)


class Tasks(bootsteps.StartStopStep):
    """Makes `strategies`, `task_buckets`, `task_consumer` and `qos`; consuming begins with the event loop."""

    requires = ("qworker.consumer.mingle:Mingle", "qworker.consumer.events:Events")

    def __init__(self, c: Consumer, **kwargs: Any) -> None:
        c.task_consumer = None
        self._flush: Any = None
        super().__init__(c, **kwargs)

    def start(self, c: Consumer) -> None:
        """Prepare consuming on a channel of the current connection.

        Raises:
            qcore.errors.UnsupportedByBroker: the broker cannot have one of the queues as it is declared.
        """
        queues = list(c.app.amqp.queues.consume_from.values())
        for queue in queues:
            c.gate.check_queue(queue)
        update_strategies(c)
        channel = c.connection.channel()
        c.task_consumer = c.connection.Consumer(
            channel=channel,
            queues=queues,
            accept=c.app.conf.accept_content,
            auto_declare=True,
            on_decode_error=c.on_decode_error,
            on_message=c.create_task_handler(),
        )
        if c.state.acknowledged is None and not outlives_connection(channel):
            c.state.acknowledged = RecentRuns()
        global_qos = uses_global_qos(c)
        c.prefetch = self.make_prefetch(c, global_qos)
        c.prefetch.apply()
        self._flush = getattr(channel, "flush", None)
        if self._flush is not None:
            c.tick_hooks.append(self._flush)

    def make_prefetch(self, c: Consumer, global_qos: bool) -> Prefetch:
        """The prefetch count as options and settings say."""
        task_consumer = c.task_consumer

        def set_count(prefetch_count: int) -> Any:
            return task_consumer.qos(prefetch_count=prefetch_count, apply_global=global_qos)

        worker = c.controller
        conf = c.app.conf
        multiplier = worker.prefetch_multiplier
        if worker.disable_prefetch:
            multiplier = 1
        prefetch = Prefetch(
            set_count,
            multiplier,
            max(c.pool.num_processes, 1),
            adaptive=conf.worker_prefetch_adaptive and not worker.prefetch_is_explicit and global_qos,
            limit=conf.worker_eta_task_limit,
        )
        if c.generation and conf.worker_enable_prefetch_count_reduction:
            # Tasks that were running when the connection was lost still fill slots.
            prefetch.reduce_for(c.state.active_count)
        return prefetch

    def stop(self, c: Consumer) -> None:
        """Stop consuming and close the channel."""
        last_flush, self._flush = self._flush, None
        if last_flush in c.tick_hooks:
            c.tick_hooks.remove(last_flush)
        stop_consuming(c)
        consumer, c.task_consumer = c.task_consumer, None
        if consumer is None:
            return
        try:
            if last_flush is not None:
                last_flush()
            consumer.channel.close()
        except c.broker_errors as exc:
            logger.debug("closing the channel of the task consumer failed: %r", exc)

    def shutdown(self, c: Consumer) -> None:
        """Stop consuming."""
        self.stop(c)

    def info(self, c: Consumer) -> dict[str, Any]:
        """The `prefetch_count` of the statistics."""
        return {"prefetch_count": c.qos.value if c.qos is not None else "N/A"}


def update_strategies(c: Consumer) -> None:
    """Make the strategies of all registered tasks, and their rate limit buckets."""
    for name, task in c.app.tasks.items():
        if name not in c.strategies:
            c.strategies[name] = strategy_for(task, c.app, c)
    c.reset_rate_limits()


def stop_consuming(c: Consumer) -> None:
    """Take no more messages; those that were taken can still be answered."""
    c.consuming = False
    if c.task_consumer is None:
        return
    try:
        c.task_consumer.cancel()
    except c.broker_errors as exc:
        logger.debug("cancelling the task consumer failed: %r", exc)


def uses_global_qos(c: Consumer) -> bool:
    """False when the prefetch count is per consumer and cannot change: quorum queues on RabbitMQ."""
    if not c.app.conf.worker_detect_quorum_queues or c.connection.transport.driver_type != "amqp":
        return True
    for queue in c.app.amqp.queues.consume_from.values():
        if (queue.queue_arguments or {}).get("x-queue-type") == "quorum":
            logger.info("Queue %s is a quorum queue: the prefetch count is per consumer.", queue.name)
            return False
    return True
