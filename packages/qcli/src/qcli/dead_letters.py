"""Reading the queues `<queue>.dead`, and sending what is in them back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen

from qcli.errors import Problem
from qcore.edge import kombu

SUFFIX = ".dead"
PREFIX = "x-dead-letter-"
# Headers of a message's past; without them it starts anew.
PAST = frozenset(
    {
        "x-delivery-count", "x-lost-deliveries", "x-first-lost", "x-last-lost", "x-last-node", "x-trial", "redelivered",
        "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
        "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason",
    }
)  # fmt: skip
PROPERTIES = ("correlation_id", "reply_to", "message_id", "type", "app_id")
BODY_CHARACTERS = 4000


@frozen
class DeadLetter:
    """One message of a queue `<queue>.dead`; held until the reader is closed.

    Attributes:
        queue: The queue it lies in.
        message: The kombu message.
        position: Its number in the queue, from 1.
    """

    queue: str
    message: Any
    position: int

    @property
    def headers(self) -> dict[str, Any]:
        """Its headers; empty when it has none."""
        headers = self.message.headers
        return headers if isinstance(headers, dict) else {}

    @property
    def id(self) -> str:
        """The task's id; for what is no task the correlation id, or the place in the queue."""
        return str(
            self.headers.get("id") or self.message.properties.get("correlation_id") or f"#{self.position}"
        )

    @property
    def task(self) -> str:
        """The task's name, `?` for what is no task."""
        return str(self.headers.get("task") or "?")

    @property
    def origin(self) -> str:
        """The queue it came from."""
        return str(self.told("queue") or self.queue.removesuffix(SUFFIX))

    def told(self, name: str) -> Any:
        """What the header `x-dead-letter-<name>` says, or None."""
        return self.headers.get(PREFIX + name)

    def summary(self) -> dict[str, Any]:
        """What a list shows of it."""
        return {
            "queue": self.queue,
            "id": self.id,
            "task": self.task,
            "reason": self.told("reason"),
            "at": self.told("at"),
            "deliveries": self.told("deliveries") or 0,
            "first_death": self.told("first-death"),
            "last_death": self.told("last-death"),
            "node": self.told("node"),
            "origin": self.origin,
        }

    def details(self) -> dict[str, Any]:
        """Everything."""
        body = self.message.body
        text = body if isinstance(body, str) else bytes(body or b"").decode("utf-8", "backslashreplace")
        return {
            **self.summary(),
            "args": self.headers.get("argsrepr"),
            "kwargs": self.headers.get("kwargsrepr"),
            "headers": dict(self.headers),
            "content_type": self.message.content_type,
            "body": text
            if len(text) <= BODY_CHARACTERS
            else f"{text[:BODY_CHARACTERS]}… ({len(text)} characters)",
        }


class DeadLetters:
    """The dead letters of an app's queues. What was read is held until the end of the `with` block.

    Args:
        app: The app.
        queues: Names of queues, with or without `.dead`; None: all that the app knows.
    """

    def __init__(self, app: Any, queues: Iterable[str] | None = None) -> None:
        self.app = app
        chosen = queues or app.amqp.queues.keys()
        self.names = sorted({name.removesuffix(SUFFIX) + SUFFIX for name in chosen})
        self._held: list[Any] = []
        self._read: dict[str, list[DeadLetter]] = {}

    def __enter__(self) -> DeadLetters:
        self.connection = self.app.connection_for_write()
        self.channel = self.connection.channel()
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._put_back()
        finally:
            self.connection.release()

    def queues(self) -> list[str]:
        """Those of the queues that hold something."""
        return [name for name in self.names if name in self._read or self.count(name)]

    def count(self, queue: str) -> int:
        """How many messages wait in a queue; 0 when it does not exist. What is held does not count on every broker."""
        declared = self._look(queue)
        return int(declared.message_count or 0) if declared is not None else 0

    def read(self, queue: str, limit: int | None = None) -> list[DeadLetter]:
        """The first messages of a queue."""
        if queue not in self._read:
            known = self._read[queue] = []
            bound = self._queue(queue)
            while (limit is None or len(known) < limit) and (message := bound.get(no_ack=False)) is not None:
                self._held.append(message)
                known.append(DeadLetter(queue, message, len(known) + 1))
        return self._read[queue]

    def replay(self, letter: DeadLetter) -> None:
        """Publish the message to the queue it came from, then remove it.

        Raises:
            Problem: that queue does not exist and the app does not know it; nothing has changed.
        """
        self._ensure_queue(letter.origin)
        message = letter.message
        headers = {
            name: value
            for name, value in letter.headers.items()
            if name not in PAST and not name.startswith(PREFIX)
        }
        if not getattr(message, "errors", None):
            headers.pop("compression", None)  # kombu has decompressed the body
        properties = message.properties
        self.connection.Producer(self.channel, auto_declare=False).publish(
            message.body if isinstance(message.body, (bytes, str)) else bytes(message.body or b""),
            exchange="",
            routing_key=letter.origin,
            content_type=message.content_type,
            content_encoding=message.content_encoding or "utf-8",
            headers=headers,
            priority=properties.get("priority") or 0,
            delivery_mode=2,
            **{name: properties[name] for name in PROPERTIES if properties.get(name)},
        )
        message.ack()
        self._flush()
        self._held.remove(message)

    def purge(self, queue: str) -> int:
        """Delete what waits in a queue; return how many messages that were."""
        return int(self._queue(queue).purge() or 0)

    def _queue(self, name: str) -> Any:
        return kombu("kombu").Queue(name, durable=True, channel=self.channel)

    def _look(self, name: str) -> Any:
        """What the broker says of a queue; None when it does not exist."""
        # A question about a queue that does not exist closes the channel on which it is asked.
        channel = self.connection.channel()
        try:
            found = kombu("kombu").Queue(name, durable=True, channel=channel).queue_declare(passive=True)
        except self.connection.channel_errors:
            return None
        channel.close()
        return found

    def _ensure_queue(self, name: str) -> None:
        queues = self.app.amqp.queues
        if name in queues:
            queues[name](self.channel).declare()
        elif self._look(name) is None:
            raise Problem(
                f"the queue {name} does not exist, and the app does not know it; start its worker, or name it in the "
                "setting task_queues. The message stays where it is"
            )

    def _put_back(self) -> None:
        if not self._held:
            return
        release = getattr(self.channel, "release", None)
        if release is not None:
            release([message.delivery_tag for message in self._held])
        else:
            for message in self._held:
                message.requeue()
        self._held.clear()
        self._flush()

    def _flush(self) -> None:
        flush = getattr(self.channel, "flush", None)
        if flush is not None:
            flush()
