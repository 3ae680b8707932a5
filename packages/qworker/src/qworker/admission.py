"""The door of the worker: every message of a task queue comes through here, whatever is in it.

A message that is a task of a known type goes to the strategy of that type. Every other message is turned away
with one clear log line: nothing that a queue holds may stop the worker or be delivered for ever.

| message | what happens |
|---|---|
| not a task, headers that make no sense | WARNING / ERROR, rejected, signal `task_rejected` |
| body cannot be decompressed | CRITICAL, rejected, signal `task_rejected` |
| content type not in `accept_content` | ERROR, state FAILURE, rejected |
| task not registered | ERROR, state FAILURE, event task-failed, put aside, signal `task_unknown` |
| as many deliveries lost as `broker_max_deliveries` | ERROR, state FAILURE, event task-failed, put aside |

A rejected message is put aside, too, when its channel can do that in one step; elsewhere it goes where the queue's
dead-letter exchange leads. See `qworker.deadletters` for what is put aside, and what counts as lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qcore.edge import kombu
from qcore.errors import ContentDisallowed, NotRegistered, WorkerLostError
from qcore.execution.records import Job
from qcore.message import MalformedMessage, check_headers, from_protocol_1, short_repr
from qcore.signals import task_rejected, task_unknown
from qworker.deadletters import DELIVERY_COUNT, LOST, too_many_lost

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)

# kombu passes these through undecoded, whatever is accepted.
PLAIN_CONTENT = frozenset({"application/data", "application/text", "", None})

MAX_DELIVERIES = 5


class Admission:
    """Finds the strategy of each message, and turns away what has none.

    Args:
        consumer: Whose messages they are.
        accept: Content types that are accepted; None accepts all.
        max_deliveries: A message delivered more often is taken for one that kills its workers.
    """

    def __init__(
        self, consumer: Consumer, accept: frozenset[str] | None, max_deliveries: int = MAX_DELIVERIES
    ) -> None:
        self.consumer = consumer
        self.accepted = None if accept is None else frozenset(accept) | PLAIN_CONTENT
        self.max_deliveries = max_deliveries

    def receive(self, message: Any) -> None:
        """Take one message; never raises because of what is in it."""
        consumer = self.consumer
        headers = message.headers
        try:
            strategy = consumer.strategies[headers["task"]]
        except (KeyError, TypeError):
            self._receive_other(message)
            return
        if self.accepted is not None and message.content_type not in self.accepted:
            self.on_disallowed(message, headers)
            return
        try:
            if self._came_before(message, headers) and self._dealt_with(message, headers):
                return
            strategy(message)
        except MalformedMessage as exc:
            self.on_invalid_task(message, exc)

    def _came_before(self, message: Any, headers: Any) -> bool:
        if not isinstance(headers, dict):
            return False
        if headers.get(DELIVERY_COUNT) or LOST in headers or message.delivery_info.get("redelivered"):
            return True
        telling = self.consumer.state.telling
        if telling is not None:
            telling.add(message.delivery_info.get("consumer_tag"))
        return False

    def _dealt_with(self, message: Any, headers: dict[str, Any]) -> bool:
        """True when a message that came before does not run now: put aside, replaced, or a suspect that waits."""
        if not self._is_task(headers):
            return False
        consumer = self.consumer
        lost = consumer.dead_letters.lost(message)
        if consumer.trials.guilty(message, lost):
            self._on_lost_too_often(message, headers, lost)
            return True
        if consumer.trials.detained(message, lost):
            return True
        if lost > consumer.dead_letters.recorded(message):
            consumer.dead_letters.put_back(message, lost)
            return True
        return False

    def _receive_other(self, message: Any) -> None:
        """A message of protocol 1, of an unknown task, or no task at all."""
        headers = message.headers
        body: bytes | None = None
        try:
            if isinstance(headers, dict) and "task" in headers:
                check_headers(headers)
            else:
                headers, body = self._convert(message)
        except MalformedMessage as exc:
            if isinstance(headers, dict) and "task" in headers:
                self.on_invalid_task(message, exc)
            else:
                self.on_unknown_message(message, exc)
            return
        except Exception as exc:  # noqa: BLE001 - any decoder may fail on any body: the message is rejected
            self.on_decode_error(message, exc)
            return
        if self._came_before(message, message.headers) and self._dealt_with(message, headers):
            return
        strategy = self.consumer.strategy_of(headers["task"])
        if strategy is None:
            self.on_unknown_task(message, headers, body)
            return
        try:
            strategy(message, headers, body)
        except MalformedMessage as exc:
            self.on_invalid_task(message, exc)

    def _convert(self, message: Any) -> tuple[dict[str, Any], bytes]:
        """Headers and body of protocol 2 for a message of protocol 1."""
        serialization = kombu("kombu.serialization")
        payload = message.decode()
        headers, parts = from_protocol_1(payload, message.headers)
        name = serialization.registry.type_to_name.get(message.content_type, message.content_type)
        _, _, body = serialization.dumps(parts, serializer=name)
        return headers, body if isinstance(body, bytes) else body.encode()

    # -- what is turned away

    def on_unknown_message(self, message: Any, exc: BaseException | None = None) -> None:
        """Reject a message that is not a task."""
        logger.warning(
            "Received and rejected a message that is not a task (%s). It came with content type %r, headers %s, "
            "delivery info %s and a body of %d bytes: %s",
            exc,
            message.content_type,
            short_repr(message.headers, 300),
            short_repr(message.delivery_info, 300),
            len(message.body or b""),
            short_repr(message.body, 200),
        )
        self._reject(message, str(exc), exc)

    def on_invalid_task(self, message: Any, exc: BaseException) -> None:
        """Reject a task message whose headers cannot be used."""
        logger.error(
            "Received and rejected an invalid task message: %s. The message has headers %s.",
            exc,
            short_repr(message.headers, 500),
        )
        self._reject(message, str(exc), exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """Reject a message whose body cannot be read at all."""
        logger.critical(
            "Can't decode message body: %r [type:%r encoding:%r headers:%s]. The message is rejected. Body: %s",
            exc,
            message.content_type,
            message.content_encoding,
            short_repr(message.headers, 300),
            short_repr(message.body, 200),
        )
        if self._is_task(message.headers):
            self._fail(message, message.headers, exc, decodable=False)
        self._reject(message, f"body cannot be decoded: {exc!r}", exc)

    def on_disallowed(self, message: Any, headers: dict[str, Any]) -> None:
        """Reject a message of a content type that is not accepted."""
        content_type = message.content_type
        exc = ContentDisallowed(
            f"Refusing to deserialize disallowed content of type {content_type} of task "
            f"{headers['task']}[{headers.get('id')}]: add its serializer to the setting accept_content to take it"
        )
        logger.error("%s. The message is rejected.", exc)
        if self._is_task(headers):
            self._fail(message, headers, exc, decodable=False)
        self._reject(message, str(exc), exc)

    def on_unknown_task(self, message: Any, headers: dict[str, Any], body: bytes | None) -> None:
        """Fail a task that is not registered here."""
        name, task_id = headers["task"], headers["id"]
        exc = NotRegistered(name)
        logger.error(
            "Received unregistered task of type %r (id %s). The task fails and its message is put aside. Is the "
            "module that defines it imported by this worker (settings imports and include, option -I), and does "
            "the name given by the sender match?",
            name,
            task_id,
        )
        consumer = self.consumer
        self._fail_and_put_aside(message, headers, exc, f"task {name!r} is not registered", body)
        task_unknown.send(sender=consumer, message=message, exc=exc, name=name, id=task_id)

    def _on_lost_too_often(self, message: Any, headers: dict[str, Any], lost: int) -> None:
        exc = WorkerLostError(too_many_lost(lost))
        logger.error("%s[%s]: %s", headers["task"], headers["id"], exc)
        self._fail_and_put_aside(message, headers, exc, str(exc), lost=lost)

    # -- how it is turned away

    def _is_task(self, headers: Any) -> bool:
        return isinstance(headers, dict) and all(
            isinstance(headers.get(name), str) and headers[name] for name in ("task", "id")
        )

    def _fail(
        self,
        message: Any,
        headers: dict[str, Any],
        exc: BaseException,
        body: bytes | None = None,
        decodable: bool = True,
        then: Callable[[], object] | None = None,
    ) -> None:
        job = job_of(message, headers, body, self.consumer.hostname)
        if not decodable:
            job = job._replace(body=b"")
        self.consumer.settler.settle(job, "FAILURE", exc, then=then)

    def _fail_and_put_aside(
        self,
        message: Any,
        headers: dict[str, Any],
        exc: BaseException,
        reason: str,
        body: bytes | None = None,
        lost: int | None = None,
    ) -> None:
        """The message leaves its queue when the state is stored, so that no end of this worker loses both."""
        consumer = self.consumer
        if consumer.send_task_event is not None:
            consumer.send_task_event("task-failed", uuid=headers["id"], exception=repr(exc), traceback=None)
        put_aside = partial(consumer.put_aside, message, reason, consumer.generation, lost)
        self._fail(message, headers, exc, body, then=put_aside)

    def _reject(self, message: Any, reason: str, exc: BaseException | None) -> None:
        consumer = self.consumer
        if hasattr(message.channel, "requeue"):
            consumer.dead_letters.put_aside(message, reason)
        else:
            consumer.reject_message(message)
        task_rejected.send(sender=consumer, message=message, exc=exc)


def job_of(message: Any, headers: dict[str, Any], body: bytes | None, hostname: str) -> Job:
    """The job of a message that has no request."""
    properties = message.properties
    info = message.delivery_info
    raw = message.body if body is None else body
    return Job(
        headers["id"],
        headers["task"],
        {name: value for name, value in headers.items() if name != "compression"},
        raw.encode() if isinstance(raw, str) else bytes(raw or b""),
        message.content_type or "application/data",
        message.content_encoding or "utf-8",
        {name: properties.get(name) for name in ("correlation_id", "reply_to", "priority", "delivery_mode")},
        {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "redelivered": bool(info.get("redelivered")),
            "priority": properties.get("priority"),
        },
        hostname,
        0.0,
    )
