"""The queues of an app by name: declared ones, those created when named, and those a worker consumes from.

Kombu is imported when the first queue is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from qcore.edge import kombu
from qcore.errors import ImproperlyConfigured

WORKER_DIRECT_EXCHANGE = "C.dq2"
_DIRECT = "direct"


def Broadcast(name: str, queue: str | None = None, unique: bool = False, **options: Any) -> Any:
    """A queue of which every worker has its own copy: each task sent to `name` runs on all of them.

    Args:
        name: of the fanout exchange; tasks are routed by it.
        queue: name of this worker's copy; default `bcast.<uuid>`.
        unique: always add a random part to `queue`.
        options: further arguments of `kombu.common.Broadcast`.

    Returns:
        A `kombu.common.Broadcast` that goes away with its consumer.
    """
    return kombu("kombu.common").Broadcast(name=name, queue=queue, unique=unique, **options)


def is_broadcast(queue: Any) -> bool:
    """Whether each consumer has its own copy of `queue`, so that a sender declares the exchange alone."""
    return queue.exchange is not None and queue.exchange.type == "fanout" and bool(queue.auto_delete)


def worker_direct(hostname: Any) -> Any:
    """The queue that only the worker called `hostname` consumes from; a Queue is returned as it is."""
    if not isinstance(hostname, str):
        return hostname
    module = kombu()
    exchange = module.Exchange(WORKER_DIRECT_EXCHANGE, type=_DIRECT)
    return module.Queue(f"{hostname}.dq2", exchange=exchange, routing_key=hostname)


@attrs.frozen(kw_only=True)
class QueueDefaults:
    """What a queue gets that does not say otherwise.

    Attributes:
        queue: where tasks without a route go.
        exchange: of declared queues that name none.
        exchange_type: of that exchange.
        routing_key: of declared queues that have none.
        max_priority: `x-max-priority` of queues without their own; None: no priorities.
        queue_type: `x-queue-type` of the default queue.
        create_missing: create queues that are named but not declared.
        missing_type: their `x-queue-type`.
        missing_exchange_type: their exchange's type; None: as `exchange_type`.
    """

    queue: str = "celery"
    exchange: str | None = None
    exchange_type: str = _DIRECT
    routing_key: str | None = None
    max_priority: int | None = None
    queue_type: str = "classic"
    create_missing: bool = True
    missing_type: str = "classic"
    missing_exchange_type: str | None = None

    @classmethod
    def from_settings(cls, conf: Any) -> QueueDefaults:
        """Read them from the app's settings."""
        return cls(
            queue=conf.task_default_queue,
            exchange=conf.task_default_exchange,
            exchange_type=conf.task_default_exchange_type,
            routing_key=conf.task_default_routing_key,
            max_priority=conf.task_queue_max_priority,
            queue_type=conf.task_default_queue_type,
            create_missing=conf.task_create_missing_queues,
            missing_type=conf.task_create_missing_queue_type,
            missing_exchange_type=conf.task_create_missing_queue_exchange_type,
        )


class Queues(Mapping[str, Any]):
    """Queue name (or alias) -> `kombu.Queue`.

    `queues[name]` creates a missing queue when that is allowed; `name in queues` and iteration do not.

    Args:
        declared: `task_queues`: list of queues, or mapping of name to queue or to queue options; None or
            empty declares the default queue alone.
        defaults: see `QueueDefaults`.
        autoexchange: makes the exchange of a created queue from its name.
    """

    def __init__(
        self,
        declared: Mapping[str, Any] | Iterable[Any] | None = None,
        defaults: QueueDefaults | None = None,
        autoexchange: Callable[[str], Any] | None = None,
    ) -> None:
        self.defaults = defaults or QueueDefaults()
        self.autoexchange = autoexchange
        self.version = 0
        """Counts changes, for caches of what was looked up."""
        self._queues: dict[str, Any] = {}
        self._aliases: dict[str, Any] = {}
        self._lock = threading.RLock()
        for queue in _declarations(declared):
            self.add(queue) if not isinstance(queue, tuple) else self.add(queue[0], **queue[1])
        if not self._queues:
            self._store(self._default_queue())
        self._selected: dict[str, Any] | None = None
        self._by_default = dict(self._queues)

    @classmethod
    def from_settings(cls, conf: Any, autoexchange: Callable[[str], Any] | None = None) -> Queues:
        """The queues that the settings declare.

        Raises:
            ImproperlyConfigured: `task_queues` holds something else.
        """
        return cls(conf.task_queues, QueueDefaults.from_settings(conf), autoexchange)

    # --- looking up -------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        found = self._aliases.get(name) or self._queues.get(name)
        if found is not None:
            return found
        if not self.defaults.create_missing:
            raise KeyError(name)
        return self._store(self._missing(name))

    def get(self, name: str, default: Any = None) -> Any:
        """The queue called `name` if there is one; nothing is created."""
        return self._aliases.get(name) or self._queues.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._queues or name in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._queues))

    def __len__(self) -> int:
        return len(self._queues)

    def for_exchange(self, name: str) -> Any:
        """The first declared queue on the exchange called `name`, None when there is none."""
        return next((queue for queue in list(self._queues.values()) if queue.exchange.name == name), None)

    # --- changing ---------------------------------------------------------------------------------

    def add(self, queue: Any, **options: Any) -> Any:
        """Declare a queue.

        Args:
            queue: a `kombu.Queue`, or the name of one made from `options`.
            options: `exchange`, `exchange_type`, `routing_key`, `queue_arguments`, `queue_durable` … as of
                `kombu.Queue.from_dict`; unused when `queue` is a Queue.

        Returns:
            The queue, completed by the defaults.
        """
        if isinstance(queue, str):
            key = options.pop("binding_key", None)
            if options.get("routing_key") is None:
                options["routing_key"] = key if key is not None else queue
            if isinstance(options.get("exchange"), kombu().Exchange):
                queue = kombu().Queue(queue, **options)
            else:
                queue = kombu().Queue.from_dict(queue, **options)
        return self._store(queue)

    def __setitem__(self, name: str, queue: Any) -> None:
        self._store(queue)

    def select(self, include: str | Iterable[str]) -> None:
        """Consume from these queues only (`-Q`); nothing given changes nothing."""
        names = _names(include)
        if names:
            with self._lock:
                chosen = [self._existing(name) for name in names]
                self._selected = {queue.name: queue for queue in chosen}

    def deselect(self, exclude: str | Iterable[str]) -> None:
        """Do not consume from these queues (`-X`); names that are not consumed from are ignored."""
        with self._lock:
            for name in _names(exclude):
                alias = self._aliases.get(name)
                self._consumed.pop(alias.name if alias is not None else name, None)

    def select_add(self, queue: Any, **options: Any) -> Any:
        """Declare a queue and consume from it, also when a subset was selected."""
        added = self.add(queue, **options)
        with self._lock:
            self._consumed[added.name] = added
        return added

    @property
    def consume_from(self) -> dict[str, Any]:
        """Name -> queue of what a worker consumes from; a copy."""
        return dict(self._consumed)

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """The consumed queues, one `.> name exchange=…(type) key=…` line each, for the start-up screen."""
        lines = [
            f".> {queue.name:<16} exchange={queue.exchange.name}({queue.exchange.type}) "
            f"key={queue.routing_key}"
            for _, queue in sorted(self._consumed.items())
        ]
        pad = " " * indent
        return "\n".join(line if i == 0 and not indent_first else pad + line for i, line in enumerate(lines))

    # --- making ------------------------------------------------------------------------------------

    @property
    def _consumed(self) -> dict[str, Any]:
        return self._by_default if self._selected is None else self._selected

    def _existing(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as exc:
            raise ImproperlyConfigured(
                f"queue {name!r} is not declared in task_queues (there are {', '.join(self)}), and "
                "task_create_missing_queues is off"
            ) from exc

    def _store(self, queue: Any) -> Any:
        with self._lock:
            present = self._queues.get(queue.name)
            self._complete(queue)
            self._queues[queue.name] = queue
            if queue.alias:
                self._aliases[queue.alias] = queue
            if present is not queue:
                self.version += 1
        return queue

    def _complete(self, queue: Any) -> None:
        defaults = self.defaults
        if queue.exchange is None or queue.exchange.name == "":
            queue.exchange = self._default_exchange()
        if not queue.routing_key:
            # Also on fanout exchanges: on Redis the key is part of the channel, and Celery's workers listen there.
            queue.routing_key = defaults.routing_key or defaults.queue
        if defaults.max_priority is not None and queue.max_priority is None:
            arguments = dict(queue.queue_arguments or {})
            arguments.setdefault("x-max-priority", defaults.max_priority)
            queue.queue_arguments = arguments

    def _default_exchange(self) -> Any:
        defaults = self.defaults
        return kombu().Exchange(defaults.exchange or defaults.queue, defaults.exchange_type)

    def _default_queue(self) -> Any:
        defaults = self.defaults
        return kombu().Queue(
            defaults.queue,
            exchange=self._default_exchange(),
            routing_key=defaults.routing_key or defaults.queue,
            queue_arguments=_type_arguments(defaults.queue_type),
        )

    def _missing(self, name: str) -> Any:
        defaults = self.defaults
        if self.autoexchange is not None and defaults.missing_exchange_type is None:
            exchange = self.autoexchange(name)
        else:
            exchange = kombu().Exchange(name, defaults.missing_exchange_type or _DIRECT)
        arguments = _type_arguments(defaults.missing_type)
        return kombu().Queue(name, exchange, name, queue_arguments=arguments)

    def __repr__(self) -> str:
        return f"<Queues {', '.join(self._queues)}>"


def _type_arguments(queue_type: str) -> dict[str, object] | None:
    # `classic` is what every broker makes without being asked; saying so would not fit existing queues.
    return None if queue_type == "classic" else {"x-queue-type": queue_type}


def _names(names: str | Iterable[str] | None) -> list[str]:
    if not names:
        return []
    parts = names.split(",") if isinstance(names, str) else names
    return [part.strip() for part in parts if part.strip()]


def _declarations(declared: Mapping[str, Any] | Iterable[Any] | None) -> Iterator[Any]:
    """Queues, or pairs of name and options."""
    if declared is None:
        return
    if isinstance(declared, str) or not isinstance(declared, Iterable):
        raise ImproperlyConfigured(
            f"task_queues must be a list of kombu.Queue or a mapping, not {type(declared).__name__}"
        )
    if isinstance(declared, Mapping):
        for name, value in declared.items():
            if isinstance(value, Mapping):
                yield (name, dict(value))
            elif value is None:
                yield (name, {})
            else:
                yield _checked_queue(value)
        return
    for value in declared:
        yield (value, {}) if isinstance(value, str) else _checked_queue(value)


def _checked_queue(value: Any) -> Any:
    if not isinstance(value, kombu().Queue):
        raise ImproperlyConfigured(f"task_queues holds {value!r}, which is no kombu.Queue")
    return value
