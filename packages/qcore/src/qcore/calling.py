"""One call becomes one message: options merged, route looked up, times made absolute, body encoded.

`Caller.send` is what `delay`, `apply_async`, `send_task` and every part of a workflow end in.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from attrs import frozen

from qcore import current, signals
from qcore.message import TaskMessage, short_repr
from qcore.producer import Prepared, PublishPolicy
from qcore.times import make_aware, maybe_iso8601

logger = logging.getLogger(__name__)

_EARLIEST_COUNTDOWN = -(1 << 31)
_PUBLISH_ARGUMENTS = ("mandatory", "immediate", "timeout", "confirm_timeout")

NOT_PROPERTIES = frozenset(
    {
        "queue", "exchange", "routing_key", "exchange_type", "priority", "delivery_mode", "serializer",
        "compression", "headers", "reply_to", "correlation_id", "expiration", "declare", "retry",
        "retry_policy", "stamped_headers", "stamps", "argsrepr", "kwargsrepr", "ignore_result", "origin",
        "result_cls", "publisher", "auth", "subtask_type", "immutable",
    }
    | set(_PUBLISH_ARGUMENTS)
)  # fmt: skip
"""Options with a meaning of their own; any other becomes a message property (4CAL-23)."""


@frozen
class Parent:
    """The task in whose run a call is made."""

    root_id: str | None
    id: str | None
    priority: int | None
    request: Any


class Caller:
    """Sends calls for one app."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def send(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task: Any = None,
        task_id: str | None = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        expires: float | timedelta | datetime | str | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        link: Any = None,
        link_error: Any = None,
        chain: Any = None,
        chord: Any = None,
        group_id: str | None = None,
        group_index: int | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        retries: int = 0,
        shadow: str | None = None,
        replaced_task_nesting: int = 0,
        add_to_parent: bool = True,
        route_name: str | None = None,
        router: Any = None,
        producer: Any = None,
        connection: Any = None,
        **options: Any,
    ) -> Any:
        """Send one call; the parameters are those of `Task.apply_async`.

        Returns:
            The `AsyncResult` of the call.

        Raises:
            kombu.exceptions.OperationalError: the broker could not be reached in time.
            kombu.exceptions.EncodeError: arguments cannot be encoded with the serializer.
            ValueError: a time or priority is not usable.
            TypeError: the arguments are not a sequence and a mapping.
            UnsupportedByBroker: the broker has no such priorities, exchanges or delays (`qcore.refusal`).
        """
        app, conf = self.app, self.app.conf
        args, kwargs = _call_arguments(args, kwargs)
        parent = self._parent(root_id, parent_id)
        if parent is not None:
            root_id = root_id or parent.root_id
            parent_id = parent_id or parent.id
            if parent.priority is not None and conf.task_inherit_parent_priority:
                options.setdefault("priority", parent.priority)
            self._inherit_stamps(options, parent.request)
        task_id = task_id or str(uuid4())
        options = (router or app.amqp.router).route(options, route_name or name, args, kwargs, task)
        eta_text = _absolute_eta(countdown, eta, conf)
        expires_text, expiration = _absolute_expiry(expires, conf)
        ignore_result = options.get("ignore_result")
        if ignore_result is None and task is not None:
            ignore_result = bool(task.ignore_result)
        message = TaskMessage(
            task=name,
            id=task_id,
            args=args,
            kwargs=kwargs,
            argsrepr=options.get("argsrepr") or short_repr(args, app.amqp.argsrepr_maxsize),
            kwargsrepr=options.get("kwargsrepr") or short_repr(kwargs, app.amqp.kwargsrepr_maxsize),
            eta=eta_text,
            expires=expires_text,
            retries=retries,
            time_limit=time_limit,
            soft_time_limit=soft_time_limit,
            shadow=shadow,
            root_id=root_id or task_id,
            parent_id=parent_id,
            group=group_id,
            group_index=group_index,
            ignore_result=ignore_result,
            replaced_task_nesting=replaced_task_nesting,
            origin=options.get("origin"),
            callbacks=_as_list(link),
            errbacks=_as_list(link_error),
            chain=chain,
            chord=chord,
            stamped_headers=options.get("stamped_headers"),
            stamps=options.get("stamps") or {},
            headers=options.get("headers"),
        )
        reply_to = options.get("reply_to") or app.oid
        if not ignore_result:
            app.backend.on_send(task_id)
        self._publish(message, options, reply_to, expiration, producer, connection)
        result = (options.get("result_cls") or app.AsyncResult)(task_id)
        result.ignored = bool(ignore_result)
        if add_to_parent and parent is not None and parent.request is not None:
            running = current.get_current_task()
            if running is None or running.trail:
                parent.request.children.append(result)
        return result

    # --- the parts -----------------------------------------------------------------------------

    def _parent(self, root_id: str | None, parent_id: str | None) -> Parent | None:
        request = current.get_worker_request()
        if request is None or request.id is None or request.called_directly:
            return None
        info = request.delivery_info or {}
        return Parent(request.root_id or request.id, request.id, info.get("priority"), request)

    def _inherit_stamps(self, options: dict[str, Any], request: Any) -> None:
        """A task sent by a stamped one carries its stamps (4CNV-30)."""
        if not request.stamped_headers:
            return
        own = list(options.get("stamped_headers") or [])
        stamps = dict(options.get("stamps") or {})
        for header in request.stamped_headers:
            if header not in own:
                own.append(header)
                stamps[header] = (request.stamps or {}).get(header)
        options["stamped_headers"], options["stamps"] = own, stamps

    def _publish(
        self,
        message: TaskMessage,
        options: dict[str, Any],
        reply_to: str,
        expiration: str | None,
        producer: Any,
        connection: Any,
    ) -> None:
        amqp = self.app.amqp
        prepared = self.prepare(message, options, reply_to, expiration)
        channel = _channel_of(producer, connection)
        amqp.gate_for(channel).check(prepared.queue, options.get("exchange"), prepared.priority, message.eta)
        if signals.before_task_publish.receivers:
            self._announce(signals.before_task_publish, message, prepared, options)
        policy: PublishPolicy = amqp.producer.policy.merged(options.get("retry"), options.get("retry_policy"))
        amqp.producer.publish((prepared,), policy, channel)
        if signals.after_task_publish.receivers:
            self._announce(signals.after_task_publish, message, prepared, options)
        if self.app.conf.task_send_sent_event:
            self._sent_event(message, prepared)

    def prepare(
        self,
        message: TaskMessage,
        options: dict[str, Any],
        reply_to: str = "",
        expiration: str | None = None,
    ) -> Prepared:
        """Encode `message` and look up its address."""
        conf, amqp = self.app.conf, self.app.amqp
        body: Any
        if conf.task_protocol == 1:
            headers, body = message.protocol_1(conf.enable_utc)
        else:
            headers, body = message.protocol_2()
            if message.stamped_headers:
                headers.update({h: message.stamps[h] for h in message.stamped_headers if h in message.stamps})
        content_type, encoding, data = amqp.codec.encode(
            body, options.get("serializer") or conf.task_serializer
        )
        compression = options.get("compression") or conf.task_compression
        if compression:
            data, headers["compression"] = amqp.codec.compress(data, compression)
        address = amqp.address(options)
        priority = options.get("priority")
        if priority is None:
            priority = conf.task_default_priority
        properties = {
            "correlation_id": options.get("correlation_id") or message.id,
            "reply_to": reply_to,
            "delivery_mode": address.delivery_mode,
        }
        if expiration is not None or options.get("expiration") is not None:
            own = options.get("expiration")
            properties["expiration"] = expiration if own is None else str(int(float(own) * 1000))
        for option, value in options.items():
            if option not in NOT_PROPERTIES and value is not None:
                properties[option] = value
        return Prepared(
            body=data,
            content_type=content_type,
            content_encoding=encoding,
            headers=headers,
            properties=properties,
            priority=_checked_priority(priority),
            exchange=address.exchange,
            routing_key=address.routing_key,
            queue=address.queue,
            options={a: options[a] for a in _PUBLISH_ARGUMENTS if a in options},
        )

    def _announce(
        self, signal: Any, message: TaskMessage, prepared: Prepared, options: dict[str, Any]
    ) -> None:
        extra: dict[str, Any] = {}
        if signal is signals.before_task_publish:
            extra = {
                "declare": [prepared.queue] if prepared.queue is not None else [],
                "retry_policy": options.get("retry_policy"),
                "properties": prepared.properties,
            }
        signal.send(
            sender=message.task,
            body=(message.args, message.kwargs, {"callbacks": message.callbacks, "errbacks": message.errbacks,
                                                 "chain": message.chain, "chord": message.chord}),
            exchange=prepared.exchange,
            routing_key=prepared.routing_key,
            headers=prepared.headers,
            **extra,
        )  # fmt: skip

    def _sent_event(self, message: TaskMessage, prepared: Prepared) -> None:
        """The client's `task-sent` event (W13-01); never fails the call."""
        dispatcher = self.app.amqp.event_dispatcher()
        try:
            dispatcher.send(
                "task-sent",
                uuid=message.id,
                root_id=message.root_id,
                parent_id=message.parent_id,
                name=message.task,
                args=message.argsrepr,
                kwargs=message.kwargsrepr,
                retries=message.retries,
                eta=message.eta,
                expires=message.expires,
                queue=prepared.queue.name if prepared.queue is not None else prepared.routing_key,
                exchange=prepared.exchange,
                routing_key=prepared.routing_key,
            )
        except Exception:
            logger.warning("task %s[%s] was sent, its event was not", message.task, message.id, exc_info=True)


def _call_arguments(args: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if args is None:
        args = ()
    elif not isinstance(args, (list, tuple)):
        if isinstance(args, (str, bytes, Mapping)) or not hasattr(args, "__iter__"):
            raise TypeError(f"task args must be a list or tuple, not {args!r}")
        args = tuple(args)
    if kwargs is None:
        kwargs = {}
    elif not isinstance(kwargs, Mapping):
        raise TypeError(f"task keyword arguments must be a mapping, not {kwargs!r}")
    return args, kwargs


def _as_list(value: Any) -> list[Any] | None:
    if not value:
        return None
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _checked_priority(priority: Any) -> int:
    if priority is None:
        return 0
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 255:
        raise ValueError(f"priority must be a whole number from 0 to 255, not {priority!r}")
    return priority


def _absolute_eta(countdown: float | timedelta | None, eta: datetime | str | None, conf: Any) -> str | None:
    """ISO text of the earliest start; None for at once."""
    if countdown:
        seconds = countdown.total_seconds() if isinstance(countdown, timedelta) else float(countdown)
        if seconds < _EARLIEST_COUNTDOWN:
            raise ValueError(f"countdown is out of range: {countdown!r}")
        try:
            moment = datetime.now(UTC) + timedelta(seconds=seconds)
        except (OverflowError, ValueError) as exc:
            raise ValueError(f"countdown is out of range: {countdown!r}") from exc
    elif eta is not None:
        moment = _moment(eta, conf)
    else:
        return None
    return moment.isoformat()


def _absolute_expiry(expires: Any, conf: Any) -> tuple[str | None, str | None]:
    """ISO text and the message's time to live in milliseconds as text (W2-07)."""
    if expires is None:
        return None, None
    now = datetime.now(UTC)
    if isinstance(expires, timedelta):
        moment = now + expires
    elif isinstance(expires, (int, float)) and not isinstance(expires, bool):
        moment = now + timedelta(seconds=expires)
    else:
        moment = _moment(expires, conf)
    left = int((moment - now).total_seconds() * 1000)
    if left <= 0:
        logger.warning("the task expires in the past (%s): a worker will revoke it", moment.isoformat())
        left = 0
    return moment.isoformat(), str(left)


def _moment(value: Any, conf: Any) -> datetime:
    try:
        moment = maybe_iso8601(value)
    except (TypeError, ValueError):
        moment = None
    if not isinstance(moment, datetime):
        raise ValueError(f"expected a datetime or ISO 8601 text, not {value!r}")
    return make_aware(moment, None if conf.enable_utc else conf.timezone)


def _channel_of(producer: Any, connection: Any) -> Any:
    """The channel of a kombu Producer or Connection that the caller brought, else None."""
    if producer is not None and hasattr(producer, "channel"):
        return producer.channel
    if connection is not None:
        return connection.default_channel
    return None
