"""The channel: answers are buffered, messages for later wait in the broker; how it publishes is in `publishing`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from qbrokers.amqp.bases import ChannelError
from qbrokers.amqp.delaying import due_time
from qbrokers.amqp.errors import ConsumerTimeout
from qbrokers.amqp.messages import Delivered, copy_of
from qbrokers.amqp.publishing import PublishingChannel
from qbrokers.amqp.settling import Book
from qbrokers.batching import (
    DEAD_LETTER_REASON_HEADER,
    DEAD_LETTER_SUFFIX,
    DELIVERY_COUNT_HEADER,
    Publication,
)

_TIMED_OUT = "delivery acknowledgement"


class Channel(PublishingChannel):
    """A channel of a `qbrokers.amqp.Connection`; satisfies `qbrokers.batching.BatchChannel`.

    Delivery tags are those of the server, raised after the server has closed and reopened the channel: a tag of
    before then never means a message of after.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.book = Book()
        self._base = 0
        self._queues: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    # -- receiving

    def basic_consume(self, queue: str = "", consumer_tag: str = "", *args: Any, **kwargs: Any) -> Any:
        """Start a consumer; see `amqp.Channel.basic_consume`."""
        connection = self._alive()
        connection.delays.serve_celery(queue)
        tag = super().basic_consume(queue, consumer_tag, *args, **kwargs)
        self._queues[tag] = queue
        return tag

    def _on_basic_deliver(
        self,
        consumer_tag: str,
        delivery_tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        msg: Any,
    ) -> None:
        tag = delivery_tag + self._base
        headers = _headers_of(msg)
        self._count(headers, redelivered)
        queue = self._queues.get(consumer_tag, routing_key)
        delivered = Delivered(consumer_tag, tag, redelivered, exchange, routing_key, msg, queue)
        if consumer_tag in self.no_ack_consumers:
            self.book.seen(tag)
        else:
            eta = due_time(headers)
            later = eta is not None and self.connection.delays.wants(eta, time.time())
            self.book.delivered(tag, delivered, ours=later)
            if later:
                self.connection.silent = True
                self.connection.delays.put_back(self, delivered)
                return
        self.hand_out(delivered)

    def hand_out(self, delivered: Delivered) -> None:
        """Give a message to its consumer."""
        consumer_tag, tag, redelivered, exchange, routing_key, msg, queue = delivered
        connection = self._alive()
        connection.handed_out += 1
        exchange, routing_key = connection.delays.origin(exchange, routing_key, queue, msg)
        super()._on_basic_deliver(consumer_tag, tag, redelivered, exchange, routing_key, msg)

    def _on_basic_cancel(self, consumer_tag: str) -> None:
        if not self._alive().saying_goodbye:
            super()._on_basic_cancel(consumer_tag)

    def _count(self, headers: dict[str, Any], redelivered: bool) -> None:
        # Quorum queues count themselves, from the second delivery on; classic queues know only "again".
        if DELIVERY_COUNT_HEADER not in headers or not redelivered:
            headers[DELIVERY_COUNT_HEADER] = int(redelivered)

    def basic_get(self, queue: str = "", no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message; None when there is none."""
        self.flush()
        msg = super().basic_get(queue, no_ack, **kwargs)
        if msg is None:
            return None
        info = msg.delivery_info
        tag = info["delivery_tag"] = info["delivery_tag"] + self._base
        self._count(_headers_of(msg), info["redelivered"])
        if no_ack:
            self.book.seen(tag)
        else:
            self.book.delivered(
                tag,
                Delivered("", tag, info["redelivered"], info["exchange"], info["routing_key"], msg, queue),
            )
        return msg

    # -- answering

    def basic_ack(self, delivery_tag: int, multiple: bool = False, argsig: str = "Lb") -> None:
        """Acknowledge at the next flush.

        Raises:
            ValueError: No message with such a tag was delivered.
        """
        connection = self._alive()
        self.book.ack(delivery_tag, multiple)
        connection.answers_wait()

    def basic_reject(self, delivery_tag: int, requeue: bool, argsig: str = "Lb") -> None:
        """Reject at the next flush.

        Raises:
            ValueError: No message with such a tag was delivered.
        """
        connection = self._alive()
        self.book.reject(delivery_tag, requeue)
        connection.answers_wait()

    def release(self, delivery_tags: Sequence[int]) -> None:
        """Put messages back. AMQP has no way that is not counted: they come again as redelivered."""
        for tag in delivery_tags:
            self.basic_reject(tag, requeue=True)

    def dead_letter(self, delivery_tag: int, reason: str) -> None:
        """Put a message aside in the queue `<queue>.dead`, which is made when it is missing.

        Raises:
            KeyError: The message is not held by this channel.
        """
        connection = self._alive()
        delivered = self.book.message(delivery_tag)
        assert isinstance(delivered, Delivered)
        name = delivered.queue + DEAD_LETTER_SUFFIX
        connection.delays.declare_plain_queue(name)
        copy = copy_of(delivered.msg, {DEAD_LETTER_REASON_HEADER: reason})
        self.publish_many([Publication(copy, "", name)])
        self.basic_ack(delivery_tag)

    def flush(self) -> None:
        """Send the answers now, in one write."""
        if self.connection is not None and self.book.waiting:
            self.connection.flush()

    def write_answers(self) -> None:
        """Write the frames; the connection joins them with those of its other channels."""
        answers = self.book.take()
        if answers:
            channel, base = self.channel_id, self._base
            data = b"".join([answer.frame(channel, base) for answer in answers])
            connection = self._alive()
            connection.writer.write(data)
            connection.bytes_sent += len(answers)

    def basic_recover(self, requeue: bool = False) -> Any:
        """Let the server deliver again what was not answered."""
        self.flush()
        self.book.clear()
        return super().basic_recover(requeue)

    # -- what the connection has declared

    def exchange_declare(self, exchange: str, type: str, *args: Any, **kwargs: Any) -> Any:
        """Declare an exchange; see `amqp.Channel.exchange_declare`."""
        self._alive().topology.exchange_types[exchange] = type
        return super().exchange_declare(exchange, type, *args, **kwargs)

    def queue_declare(self, queue: str = "", *args: Any, **kwargs: Any) -> Any:
        """Declare a queue; see `amqp.Channel.queue_declare`."""
        if (kwargs.get("arguments") or {}).get("x-queue-type") == "quorum":
            self._alive().topology.quorum_queues.add(queue)
        self.flush()
        return super().queue_declare(queue, *args, **kwargs)

    def queue_bind(
        self, queue: str, exchange: str = "", routing_key: str = "", *args: Any, **kwargs: Any
    ) -> Any:
        """Bind a queue; see `amqp.Channel.queue_bind`."""
        self._alive().topology.bound(queue, exchange, routing_key)
        return super().queue_bind(queue, exchange, routing_key, *args, **kwargs)

    def queue_delete(self, queue: str = "", *args: Any, **kwargs: Any) -> Any:
        """Delete a queue; see `amqp.Channel.queue_delete`."""
        connection = self._alive()
        connection.topology.forget(queue)
        connection.delays.forget(queue)
        return super().queue_delete(queue, *args, **kwargs)

    def queue_purge(self, queue: str = "", *args: Any, **kwargs: Any) -> Any:
        """Empty a queue; messages for it that wait in the delay queues are not reached."""
        return super().queue_purge(queue, *args, **kwargs)

    # -- life

    def wait(
        self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False
    ) -> Any:
        """Wait for a reply, no longer than the server is given.

        Raises:
            RecoverableConnectionError: It did not come in time.
        """
        connection = self._alive()
        with connection.reply_expected():
            return super().wait(
                method, callback, connection.reply_seconds() if timeout is None else timeout, returns_tuple
            )

    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> None:
        self.book.clear()
        self._base = self.book.last_tag
        self.confirms.reset()
        self._queues.clear()
        try:
            super()._on_close(reply_code, reply_text, class_id, method_id)
        except ChannelError as exc:
            if reply_code == 406 and _TIMED_OUT in reply_text:
                raise ConsumerTimeout(reply_text, (class_id, method_id), reply_code=reply_code) from exc
            raise

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Send the answers and close; what was not answered goes back to its queues."""
        connection = self.connection
        if connection is None or connection.channels is None:
            return
        if not connection.broken and self.is_open:
            self.flush()
        close = super().close
        connection.close_channel(self, lambda: close(*args, **kwargs))

    def collect(self) -> None:
        """Drop everything without a word to the server."""
        self.book.clear()
        self._queues.clear()
        super().collect()


def _headers_of(msg: Any) -> dict[str, Any]:
    headers = msg.properties.get("application_headers")
    if headers is None:
        headers = msg.properties["application_headers"] = {}
    return headers  # type: ignore[no-any-return]
