"""The consumer object: what its steps share, and how it survives the loss of the connection."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from qcore.edge import kombu
from qcore.execution.records import Outcome
from qcore.times import parse_rate
from qworker import bootsteps
from qworker.admission import Admission
from qworker.consumer.prefetch import Prefetch
from qworker.consumer.redelivery import settle_redelivery
from qworker.deadletters import LOST, DeadLetters, moves
from qworker.limits import HeldRequests, TokenBucket
from qworker.settlement import Settler
from qworker.state import RESERVED, SCHEDULED, run_of
from qworker.strategy import strategy_for
from qworker.trials import Trials

if TYPE_CHECKING:
    from qworker.pools.contract import Pool
    from qworker.request import Request
    from qworker.strategy import TaskStrategy

logger = logging.getLogger(__name__)

ETA_LOOK_SECONDS = 5.0
"""How soon a worker sees that its wall clock was set, when it holds few tasks that wait for their `eta`."""
ETA_LOOKS_PER_SECOND = 200
ETA_EARLY_SECONDS = 0.01
"""A timer may be early by so much."""


class ConsumerBlueprint(bootsteps.Blueprint):
    """The steps of the consumer; all of them are restarted with the connection."""

    name = "Consumer"
    default_steps = (
        "qworker.consumer.connection:Connection",
        "qworker.consumer.mingle:Mingle",
        "qworker.consumer.events:Events",
        "qworker.consumer.gossip:Gossip",
        "qworker.consumer.heart:Heart",
        "qworker.consumer.control:Control",
        "qworker.consumer.tasks:Tasks",
        "qworker.consumer.loop:EventLoop",
        "qworker.consumer.agent:Agent",
    )


class Consumer:
    """Made by the worker's last step; `start()` blocks until the worker stops.

    Attributes (documented ones first):
        app, hostname, controller, hub, pool, timer, blueprint: what the names say.
        connection: Current `kombu.Connection`; None before the step Connection.
        gate: Knows what the broker of that connection can do, and refuses the rest (step Connection).
        event_dispatcher: Sends events (step Events).
        gossip, heart: The steps' objects, or None.
        task_consumer: `kombu.Consumer` of the task queues (step Tasks).
        strategies: Task name -> strategy (step Tasks).
        task_buckets: Task name -> rate limit bucket, None for no limit.
        qos: kombu's `QoS` of the task consumer.
        state: What the worker knows at run time.
        generation: Number of the connection; messages of earlier ones cannot be acknowledged.
        send_task_event: Sends a task event; None while those are off.
    """

    def __init__(
        self,
        controller: Any,
        *,
        on_ready: Callable[[Consumer], object] | None = None,
        **options: Any,
    ) -> None:
        app = controller.app
        self.app = app
        self.hostname: str = controller.hostname
        self.controller = controller
        self.hub = controller.hub
        self.timer = controller.timer
        self.state = controller.state
        self.options = options
        self.on_ready = on_ready
        self.connection: Any = None
        self.gate: Any = None
        self.event_dispatcher: Any = None
        self.gossip: Any = None
        self.heart: Any = None
        self.task_consumer: Any = None
        self.prefetch: Prefetch | None = None
        self.pidbox_node: Any = None
        self.strategies: dict[str, Any] = {}
        self.task_buckets: defaultdict[str, Any] = defaultdict(lambda: None)
        self.held: dict[str, HeldRequests] = {}
        self.eta_entries: dict[int, Any] = {}
        self.generation = 0
        self.first_connection = True
        self.connected_at = 0.0
        self.processed_before = 0
        self.short_lives = 0
        self.consuming = False
        self.broker_error: BaseException | None = None
        self.send_task_event: Callable[..., Any] | None = None
        self.on_task_message: set[Callable[[Any], object]] = set()
        self.accept = accepted_types(app.conf.accept_content)
        self.default_limits: tuple[float | None, float | None] = controller.default_limits
        self.settler = Settler(app, self.hub.call_soon)
        self.dead_letters = DeadLetters(self)
        self.admission = Admission(self, self.accept, app.conf.broker_max_deliveries or 2**31)
        self.trials = Trials(self, self.admission.max_deliveries)
        self.tick_hooks: list[Callable[[], object]] = []
        self.steps: list[Any] = []
        self.blueprint = ConsumerBlueprint(
            steps=app.steps["consumer"],
            # A consumer step may require a worker step, which runs already.
            provided=controller.blueprint.types.values(),
            on_close=self.on_close,
        )
        self.blueprint.apply(self, **options)

    def __repr__(self) -> str:
        return f"<Consumer: {self.hostname} ({self.blueprint.human_state()})>"

    # -- life

    def start(self) -> None:
        """Run the steps, again after each loss of the connection, until the worker stops."""
        from qworker.consumer.reconnect import run_until_stopped

        run_until_stopped(self)

    def stop(self) -> None:
        """Stop the steps."""
        self.blueprint.stop(self)

    def terminate(self) -> None:
        """Stop the steps without waiting for anything."""
        self.blueprint.stop(self, terminate=True)

    def shutdown(self) -> None:
        """Let the steps do what they do when the worker goes away."""
        self.blueprint.shutdown(self)

    def on_close(self) -> None:
        """The blueprint is closing."""
        self.send_task_event = None

    @property
    def pool(self) -> Pool:
        """The worker's pool."""
        return self.controller.pool  # type: ignore[no-any-return]

    @property
    def qos(self) -> Any:
        """kombu's `QoS` of the task consumer; None before the step Tasks."""
        return None if self.prefetch is None else self.prefetch.qos

    @property
    def broker_errors(self) -> tuple[type[BaseException], ...]:
        """What the transport raises when connection or channel are gone."""
        connection = self.connection
        if connection is None:
            return (OSError,)
        return (*connection.connection_errors, *connection.channel_errors)

    # -- queues

    def add_task_queue(
        self,
        queue: Any,
        exchange: Any = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **options: Any,
    ) -> None:
        """Consume from one queue more, also after a reconnection; does nothing when it is consumed already.

        Raises:
            qcore.errors.UnsupportedByBroker: the broker cannot have such a queue.
        """
        queues = self.app.amqp.queues
        name = getattr(queue, "name", queue)
        if name in queues:
            chosen = queues[name]
        else:
            exchange = name if exchange is None else exchange
            chosen = queues.add(
                queue,
                exchange=exchange,
                exchange_type=exchange_type or "direct",
                routing_key=name if routing_key is None else routing_key,
                **options,
            )
        if self.gate is not None:
            self.gate.check_queue(chosen)
        if name not in queues.consume_from:
            queues.select_add(chosen)
        consumer = self.task_consumer
        if consumer is not None and not consumer.consuming_from(name):
            consumer.add_queue(chosen)
            consumer.consume()
            logger.info("Started consuming from %s", name)

    def cancel_task_queue(self, queue: Any) -> None:
        """Stop consuming from a queue, also after a reconnection."""
        name = getattr(queue, "name", queue)
        self.app.amqp.queues.deselect(name)
        if self.task_consumer is not None:
            self.task_consumer.cancel_by_queue(name)
        logger.info("Cancelled queue %s", name)

    def strategy_of(self, name: str) -> Any:
        """The strategy of a task type; also of one registered since the start. None for an unknown one."""
        strategy = self.strategies.get(name)
        if strategy is None and name in self.app.tasks:
            strategy = self.strategies[name] = strategy_for(self.app.tasks[name], self.app, self)
            if not self.app.conf.worker_disable_rate_limits:
                self.task_buckets[name] = self.bucket_for_task(self.app.tasks[name])
        return strategy

    # -- rate limits

    def bucket_for_task(self, task: Any, bucket_class: Callable[[float], Any] = TokenBucket) -> Any:
        """A bucket for the task's `rate_limit`; None when it has none."""
        rate = parse_rate(getattr(task, "rate_limit", None))
        return bucket_class(rate) if rate else None

    def reset_rate_limits(self) -> None:
        """Make buckets anew from the tasks' `rate_limit`s; what is held starts when the new ones let it."""
        self.task_buckets.clear()
        if not self.app.conf.worker_disable_rate_limits:
            for name, task in self.app.tasks.items():
                bucket = self.bucket_for_task(task)
                if bucket is not None:
                    self.task_buckets[name] = bucket
        waiting = [request for held in self.held.values() for request in held.take_all()]
        self.held.clear()
        for request in waiting:
            self.release_prefetch()
            request.phase = RESERVED
            request.strategy.start(request)

    def held_for(self, strategy: TaskStrategy, bucket: Any) -> HeldRequests:
        """Those requests of a task type that wait for a turn in its bucket."""
        held = self.held.get(strategy.name)
        if held is None:
            held = self.held[strategy.name] = HeldRequests(bucket, self.timer, strategy.resume)
        held.bucket = bucket
        return held

    # -- messages

    def create_task_handler(self) -> Callable[[Any], None]:
        """What is called with each message of a task queue."""
        receive, hooks = self.admission.receive, self.on_task_message
        if not hooks:
            return receive

        def receive_and_tell(message: Any) -> None:
            for hook in list(hooks):
                hook(message)
            receive(message)

        return receive_and_tell

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """A message cannot be decompressed or decoded; it is rejected."""
        self.admission.on_decode_error(message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """A message is not a task; it is rejected."""
        self.admission.on_unknown_message(message)

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task is not registered; it fails, and its message is rejected."""
        self.admission.on_unknown_task(message, message.headers, None)

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """The headers of a task message cannot be used; it is rejected."""
        self.admission.on_invalid_task(message, exc)

    def apply_eta_task(self, request: Request) -> None:
        """Hold a request until its `eta`."""
        request.phase = SCHEDULED
        self.hold_prefetch()
        delay = max((request.eta or 0.0) - time.time(), 0.0)
        self.gate.note_held(delay)
        self._look_after(delay, request)

    def _look_after(self, delay: float, request: Request) -> None:
        # The wall clock may be set meanwhile, so a request is looked at again and again, all of them together
        # some hundred times a second at most.
        seconds = min(delay, ETA_LOOK_SECONDS + len(self.eta_entries) / ETA_LOOKS_PER_SECOND)
        self.eta_entries[request.tag] = self.timer.call_after(seconds, self._on_eta, (request,), priority=6)

    def _on_eta(self, request: Request) -> None:
        self.eta_entries.pop(request.tag, None)
        left = (request.eta or 0.0) - time.time()
        if left > ETA_EARLY_SECONDS:
            self._look_after(left, request)
            return
        self.release_prefetch()
        request.phase = RESERVED
        if not request.revoked():
            request.strategy.start(request)

    def hold_prefetch(self) -> None:
        """One message more waits for its time: fetch one more."""
        if self.prefetch is not None:
            self.prefetch.qos.increment_eventually()

    def release_prefetch(self) -> None:
        """A held message has gone on: fetch one less."""
        if self.prefetch is not None:
            self.prefetch.qos.decrement_eventually()

    def note_dispatch(self, strategy: TaskStrategy) -> None:
        """A task of this type went to the pool."""
        prefetch = self.prefetch
        if prefetch is not None and prefetch.extra:
            prefetch.note_dispatch(strategy)

    def note_done(self, request: Request, outcome: Outcome) -> None:
        """A run has ended: keep the averages."""
        request.strategy.note_run(outcome.runtime_seconds)
        if self.prefetch is not None:
            self.prefetch.note_run(outcome.runtime_seconds)

    def redelivery_settled(self, request: Request) -> bool:
        """True when the message repeats one that this worker runs or has run; it needs no run of its own."""
        message = request.message
        if not message.delivery_info.get("redelivered") and not request.headers.get("redelivered"):
            return False
        return settle_redelivery(self, request)

    # -- answers to the broker

    def ack(self, request: Request) -> None:
        """Acknowledge the message of a request; called by the request."""
        message = request.message
        state = self.state
        if not self._answerable(request):
            state.unacknowledged.add(run_of(request.headers))
            return
        try:
            message.channel.basic_ack(message.delivery_tag)
            message._state = "ACK"
        except self.broker_errors as exc:
            # Raised at the end of the tick: from here it would get lost in the pool's loop.
            self.broker_error = exc
            state.unacknowledged.add(run_of(request.headers))
        else:
            if state.acknowledged is not None:
                state.acknowledged.add(request.headers)

    def ack_message(self, message: Any) -> None:
        """Acknowledge a message that has no request, now: what replaces it may kill this worker in the same tick."""
        message.channel.basic_ack(message.delivery_tag)
        flush = getattr(message.channel, "flush", None)
        if flush is not None:
            flush()

    def reject(self, request: Request, requeue: bool) -> None:
        """Reject the message of a request; called by the request. Going back does not count as a lost delivery."""
        if not self._answerable(request):
            return
        if requeue:
            self.dead_letters.put_back(request.message)
        else:
            self.reject_message(request.message)

    def reject_message(self, message: Any, requeue: bool = False) -> None:
        """Reject a message."""
        try:
            message.channel.basic_reject(message.delivery_tag, requeue=requeue)
            message._state = "REQUEUED" if requeue else "REJECTED"
        except self.broker_errors as exc:
            self.broker_error = exc

    def release(self, requests: Iterable[Request]) -> None:
        """Give back messages whose tasks were not started; no event tells of it."""
        for request in requests:
            self.state.forget(request)
            if request.acknowledged:
                continue
            request.acknowledged = True
            message = request.message
            release = getattr(message.channel, "release", None)
            # On AMQP a return is flagged as a redelivery; a message that was flagged once is replaced by a copy.
            counts = LOST in request.headers and not moves(message.channel)
            if release is None or counts or not self._answerable(request):
                self.reject(request, True)
                continue
            try:
                release([message.delivery_tag])
                message._state = "REQUEUED"
            except self.broker_errors as exc:
                self.broker_error = exc

    def return_lost(self, request: Request, how: str) -> None:
        """Return the message of a request whose process died, or end the task when that has happened too often."""
        from qworker.consumer.lost import return_lost

        return_lost(self, request, how)

    def put_aside(
        self, message: Any, reason: str, generation: int, lost: int | None = None, node: str | None = None
    ) -> None:
        """Move a message that cannot run to the dead letters; see `DeadLetters.put_aside`.

        Args:
            message: The message.
            reason: One line for the operator.
            generation: Number of the connection that brought it.
            lost: How many of its deliveries were lost; None: as its headers say.
            node: Who lost the last one, if it was this worker.
        """
        if generation == self.generation or hasattr(message.channel, "publish_many"):
            self.dead_letters.put_aside(message, reason, lost, node)

    def _answerable(self, request: Request) -> bool:
        if request.generation == self.generation:
            return True
        return outlives_connection(request.message.channel)

    # -- ends without a child

    def settle(
        self,
        request: Request,
        state: str,
        exc: BaseException,
        then: Callable[[], object] | None = None,
        traceback: str | None = None,
    ) -> None:
        """Store a final state for a request that no child can store it for; then call `then`, in the loop."""
        self.settler.settle(request.job(), state, exc, traceback, then)

    def retry_lost(self, request: Request, exc: BaseException) -> bool:
        """Send a task again whose process died (`retry_on_worker_lost`); False when it may not be."""
        from qworker.consumer.lost import retry_lost

        return retry_lost(self, request, exc)

    # -- the loop

    def end_of_tick(self) -> None:
        """Send what the tick has collected: work to children, acknowledgements, events.

        Raises:
            One of the transport's errors, when the connection is gone.
        """
        self.pool.flush()
        if self.broker_error is not None:
            error, self.broker_error = self.broker_error, None
            raise error
        if self.prefetch is not None and self.consuming:
            self.prefetch.apply()
        for hook in list(self.tick_hooks):
            hook()
        if self.hub._ready:  # called soon by one of these; the hub would wait first
            self.controller.wakeup.set()


def outlives_connection(channel: Any) -> bool:
    """Whether the broker holds the messages of a lost connection for their acknowledgement: Redis and SQLite of ours.

    On AMQP the acknowledgement of a message dies with its channel, and the message is delivered again.
    """
    return hasattr(channel, "requeue")


def accepted_types(accept_content: Any) -> frozenset[str] | None:
    """Content types for the setting `accept_content`; None accepts all."""
    prepared = kombu("kombu.serialization").prepare_accept_content(accept_content)
    return None if prepared is None else frozenset(prepared)
