"""Everything an app needs to put task messages on the broker: queues, router, codec, address, producer."""

from __future__ import annotations

import contextlib
import threading
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from attrs import frozen

from qbrokers.capabilities import capabilities
from qcore import connections, errors, serialization
from qcore.edge import kombu
from qcore.message import origin
from qcore.producer import LinkPool, PublishPolicy, TaskProducer
from qcore.queues import Queues
from qcore.refusal import Gate
from qcore.routing import Router

_PERSISTENT, _TRANSIENT = 2, 1
_MODES = {"persistent": _PERSISTENT, "transient": _TRANSIENT, 2: _PERSISTENT, 1: _TRANSIENT}


@frozen
class Address:
    """Where one message goes."""

    exchange: str
    routing_key: str
    queue: Any
    """The kombu Queue to declare; None when exchange and key were given by hand."""
    delivery_mode: int


class Codec:
    """Encodes and decodes bodies as the app's settings allow."""

    def __init__(self, conf: Any) -> None:
        self._conf = conf
        self._accept: frozenset[str] | None = None

    @property
    def accept(self) -> frozenset[str]:
        """Content types that are decoded."""
        if self._accept is None:
            self._accept = serialization.accepted_content_types(self._conf.accept_content)
        return self._accept

    def encode(self, body: Any, serializer: str) -> tuple[str, str, bytes]:
        """Content type, content encoding and the encoded body."""
        return serialization.dumps(body, serializer)

    def decode(self, data: bytes, content_type: str, encoding: str, *, accept: Any = ...) -> Any:
        """The body; raises `ContentDisallowed` or `DecodeError`."""
        return serialization.loads(
            data, content_type, encoding, accept=self.accept if accept is ... else accept
        )

    def compress(self, data: bytes, name: str) -> tuple[bytes, str]:
        """The compressed body and the MIME name of the compression."""
        return serialization.compress(data, name)


class AMQP:
    """The messaging side of one app (`app.amqp`)."""

    argsrepr_maxsize = 1024
    kwargsrepr_maxsize = 1024

    def __init__(self, app: Any) -> None:
        self.app = app
        self._lock = threading.RLock()
        self._dispatcher: Any = None
        self._gates: WeakKeyDictionary[Any, Gate] = WeakKeyDictionary()

    @cached_property
    def queues(self) -> Queues:
        """The queues by name; those that tasks are sent to are created when missing."""
        return Queues.from_settings(self.app.conf)

    @cached_property
    def router(self) -> Router:
        """Looks up where a task goes."""
        return Router(self.app.conf, self.queues, app=self.app)

    @cached_property
    def codec(self) -> Codec:
        """Serializer and compression."""
        return Codec(self.app.conf)

    def flush_routes(self) -> None:
        """Read routes and queues from the settings again."""
        for name in ("queues", "router", "codec"):
            self.__dict__.pop(name, None)

    @property
    def default_queue(self) -> Any:
        """The kombu Queue that tasks without a route go to."""
        return self.queues[self.app.conf.task_default_queue]

    def Producer(self, channel: Any, **options: Any) -> Any:
        """A kombu Producer with the app's serializer."""
        options.setdefault("serializer", self.app.conf.task_serializer)
        return kombu().Producer(channel, **options)

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **options: Any) -> Any:
        """A kombu Consumer of the selected queues."""
        return kombu().Consumer(
            channel,
            accept=self.app.conf.accept_content if accept is None else accept,
            queues=list(self.queues.consume_from.values()) if queues is None else queues,
            **options,
        )

    def address(self, options: dict[str, Any]) -> Address:
        """The address that routed options lead to (W1-04).

        A direct queue is reached by its name through the default exchange, unless both exchange and key were given.
        An exchange given by hand is declared if one of our queues is on it: a fanout exchange that nobody has
        declared yet swallows messages.
        """
        queue, exchange, key = options.get("queue"), options.get("exchange"), options.get("routing_key")
        mode = options.get("delivery_mode")
        if isinstance(queue, str):
            queue = self.queues[queue]
        if exchange is not None and not isinstance(exchange, str):
            mode = exchange.delivery_mode if mode is None else mode
            exchange = exchange.name
        if exchange and (queue is None or queue.exchange.name != exchange):
            queue = self.queues.for_exchange(exchange) or queue
        if queue is not None:
            complete = exchange is not None and key is not None
            own = exchange is None or exchange == queue.exchange.name
            if own and not complete and queue.exchange.type in ("direct", "", None):
                exchange, key = "", queue.name
            elif exchange is None or key is None:
                exchange = queue.exchange.name if exchange is None else exchange
                key = (queue.routing_key or queue.name) if key is None else key
            if mode is None:
                mode = queue.exchange.delivery_mode
        if exchange is None and key is None:
            return self.address({**options, "queue": self.app.conf.task_default_queue})
        if mode is None:
            mode = self.app.conf.task_default_delivery_mode
        return Address(exchange or "", key or "", queue, _MODES.get(mode, _PERSISTENT))

    # --- publishing ------------------------------------------------------------------------------

    @cached_property
    def producer(self) -> TaskProducer:
        """Publishes prepared messages through pooled links."""
        conf = self.app.conf
        policy = PublishPolicy(
            retry=conf.task_publish_retry,
            deadline_seconds=conf.broker_publish_timeout,
            **{
                name: value
                for name, value in dict(conf.task_publish_retry_policy or {}).items()
                if name in ("max_retries", "interval_start", "interval_step", "interval_max", "errback")
            },
        )
        pool = LinkPool(
            lambda: connections.publishing_connection(conf),
            conf.broker_pool_limit,
            conf.broker_pool_acquire_timeout,
        )
        return TaskProducer(
            pool, policy, lambda: connections.describe(connections.connection_for_write(conf))
        )

    @cached_property
    def gate(self) -> Gate:
        """Refuses what the broker for sending cannot do."""
        connection = connections.connection_for_write(self.app.conf)
        return Gate(capabilities(connection), lambda: connections.describe(connection))

    def gate_for(self, channel: Any) -> Gate:
        """The gate of a channel that a caller brought, whose broker may be another one; None: `gate`."""
        if channel is None:
            return self.gate
        connection = channel.connection.client
        found = self._gates.get(connection)
        if found is None:
            found = self._gates[connection] = Gate.of(connection)
        return found

    def event_dispatcher(self) -> Any:
        """The dispatcher of this process for `task-sent` and custom events."""
        from qcore.events import EventDispatcher

        with self._lock:
            if self._dispatcher is None:
                conf = self.app.conf
                self._dispatcher = EventDispatcher(
                    self.app.connection_for_write(),
                    hostname=origin(),
                    serializer=conf.event_serializer,
                    exchange=conf.event_exchange,
                    clock=self.app.clock,
                )
            return self._dispatcher

    def after_fork(self) -> None:
        """Forget what belongs to the parent process."""
        self._dispatcher = None

    def close(self) -> None:
        """Close the connections for publishing."""
        self.__dict__.pop("gate", None)
        with contextlib.suppress(errors.OperationalError):
            if "producer" in self.__dict__:
                self.__dict__.pop("producer").close()
        if self._dispatcher is not None:
            self._dispatcher.close()
            self._dispatcher = None
