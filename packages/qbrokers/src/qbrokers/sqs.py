"""Amazon SQS: kombu's transport, with a receiving loop that goes on whatever SQS answers.

kombu receives in a chain: each answer sets off the next question. Its chain ends for good, or ends the program, at the
first answer that is none: an unreachable server, an error 5xx, a queue that was deleted, an expired token. Here every
failure is logged and the question is asked again. Besides:

* What a consumer holds stays invisible to others for as long as the program lives: it is renewed at a third of the
  `visibility_timeout`. What a dead program held comes back when that is over.
* `release`, `basic_recover` and closing give messages back at once.
* A consumer whose prefetch count is used up goes on as soon as a message is acknowledged.
* Questions without an answer are given up, so that a connection that was cut silently does not stop the consumer.
* A channel receives in the hub where its connection was registered, and nowhere else: kombu takes the program's hub for
  all connections, so that a task cannot consume by itself.
* `drain_events` waits no longer than it was told to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

import pycurl
from kombu.asynchronous.aws.ext import exceptions as aws_errors
from kombu.asynchronous.aws.sqs.connection import AsyncSQSConnection
from kombu.asynchronous.http import get_client
from kombu.transport import SQS
from kombu.transport.SQS.exceptions import DoesNotExistQueueException, UndefinedQueueException

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10
ANSWER_SECONDS = 20
"""How much longer than the long poll an answer may take."""
RETRY_MAX_SECONDS = 30.0
BATCH_SIZE = 10
"""Entries that SQS takes in one request."""

BaseChannel: Any = SQS.Channel
BaseTransport: Any = SQS.Transport
promise: Any = SQS.promise  # type: ignore[attr-defined]


class Channel(BaseChannel):  # type: ignore[misc]
    """A channel whose consumers do not stop receiving."""

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self._failures: dict[str, int] = {}
        self._full: set[str] = set()
        self._renewal: Any = None
        self._patience = 0
        super().__init__(connection, **kwargs)
        self.hub = connection.hub

    # -- receiving in a hub

    def join(self, hub: Any) -> None:
        """Receive in a hub from now on."""
        self.hub = hub
        for queue in self._active_queues:
            hub.call_soon(self._schedule_queue, queue)
        if self._active_queues:
            self._start_renewal()

    def basic_consume(self, *args: Any, **kwargs: Any) -> Any:
        """Receive from a queue."""
        if self.hub is not None:
            self._start_renewal()
        return super().basic_consume(*args, **kwargs)

    def _start_renewal(self) -> None:
        if self.visibility_timeout and self._renewal is None:
            self._renewal = self.hub.call_repeatedly(max(self.visibility_timeout / 3, 1.0), self.renew)

    def asynsqs(self, queue: str | None = None) -> Any:
        """Return what asks SQS in this channel's hub."""
        attributes = self.get_message_attributes
        connection: Any = AsyncSQSConnection
        return connection(
            sqs_connection=self.sqs(queue=queue),
            http_client=get_client(self.hub),
            region=self.predefined_queues.get(queue, {}).get("region", self.region),
            message_system_attribute_names=attributes.get("MessageSystemAttributeNames"),
            message_attribute_names=attributes.get("MessageAttributeNames"),
        )

    def _schedule_queue(self, queue: str) -> None:
        if queue not in self._active_queues:
            return
        if not self.qos.can_consume():
            self._full.add(queue)
            return
        try:
            self._ask(queue)
        except Exception as exc:  # noqa: BLE001 - botocore: credentials, name resolution, creating the queue
            self._ask_again(queue, exc)

    def _ask(self, queue: str) -> None:
        name = self.canonical_queue_name(queue)
        url = self._new_queue(queue)
        self.asynsqs(queue=name).receive_message(
            name,
            url,
            number_messages=self._get_message_estimate(),
            visibility_timeout=self.visibility_timeout,
            wait_time_seconds=self.wait_time_seconds,
            callback=promise(
                self._on_answer, (queue, url, self.sqs(queue=name)), on_error=partial(self._on_refusal, queue)
            ),
        )

    def _on_answer(self, queue: str, url: str, client: Any, answer: Any) -> None:
        if self.closed:
            if isinstance(answer, dict) and (messages := answer.get("Messages")):
                _change_visibility(client, url, [message["ReceiptHandle"] for message in messages], 0)
            return
        if not isinstance(answer, dict):  # kombu makes a list of a server error, and of no answer at all
            self._ask_again(queue, "there was no answer, or the server has an error")
            return
        self._failures.pop(queue, None)
        try:
            taken = self._on_messages_ready(url, queue, answer)
        except Exception as exc:  # noqa: BLE001 - what a message was handed to; its error has to reach the loop
            self.hub.call_soon(partial(_raise, exc))
            taken = 1
        self._loop1(queue, taken)

    def _on_refusal(self, queue: str, *args: Any) -> None:
        if self.closed:
            return
        # The queue may have been deleted: the next question makes sure that there is one.
        self._queue_cache.pop(self.canonical_queue_name(queue), None)
        self._ask_again(queue, args[-1])

    def _ask_again(self, queue: str, why: object) -> None:
        failures = self._failures[queue] = self._failures.get(queue, 0) + 1
        pause = min(2.0 ** (failures - 1), RETRY_MAX_SECONDS)
        logger.warning(
            "Receiving from the SQS queue %s failed: %s. It is tried again in %g seconds.", queue, why, pause
        )
        self.hub.call_later(pause, self._schedule_queue, queue)

    def _go_on(self) -> None:
        while not self.closed and self._full and self.qos.can_consume():
            self.hub.call_soon(self._schedule_queue, self._full.pop())

    # -- receiving without a hub

    def drain_events(self, timeout: float | None = None, callback: Any = None, **kwargs: Any) -> None:
        """Ask once; SQS, which counts whole seconds, waits no longer than `timeout`."""
        longest = self.wait_time_seconds
        self._patience = longest if timeout is None else min(int(timeout), longest)
        super().drain_events(timeout, callback, **kwargs)

    def _get(self, queue: str) -> Any:
        # SQS looks at all of its servers only when it may wait, and answers "nothing" by mistake when it may not.
        self._patience = min(1, self.wait_time_seconds)
        return super()._get(queue)

    def _receive_message(
        self, queue: str, max_number_of_messages: int = 1, wait_time_seconds: int | None = None
    ) -> Any:
        # kombu's `wait_time_seconds` is the option, whatever the caller asked for.
        attributes = {name: value for name, value in self.get_message_attributes.items() if value}
        return self.sqs(queue=self.canonical_queue_name(queue)).receive_message(
            QueueUrl=self._new_queue(queue),
            MaxNumberOfMessages=max_number_of_messages,
            WaitTimeSeconds=self._patience,
            VisibilityTimeout=self.visibility_timeout,
            **attributes,
        )

    # -- answers

    def basic_qos(self, *args: Any, **kwargs: Any) -> None:
        """Set the prefetch count."""
        super().basic_qos(*args, **kwargs)
        self._go_on()

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Delete a message."""
        super().basic_ack(delivery_tag, multiple)
        self._go_on()

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Delete a message, or show it to others again after `wait_time_seconds`."""
        super().basic_reject(delivery_tag, requeue)
        self._go_on()

    def release(self, tags: Iterable[str]) -> None:
        """Show messages to other consumers at once."""
        for tag in self._set_visibility(tags, 0):
            self.qos.ack(tag)
        self._go_on()

    def basic_recover(self, requeue: bool = False) -> None:
        """Show all that is held to other consumers."""
        if not requeue:
            super().basic_recover(requeue)
        self.qos._flush()
        self.release(list(self.qos._delivered))

    def renew(self) -> None:
        """Keep what is held invisible to others for another `visibility_timeout`."""
        self.qos._flush()
        self._set_visibility(self.qos._delivered, self.visibility_timeout)

    def _set_visibility(self, tags: Iterable[str], seconds: int) -> Sequence[str]:
        """Set it for held messages; where SQS refuses, the earlier one stays in force.

        Returns:
            The tags.
        """
        tags = list(tags)
        by_url: dict[str, list[str]] = {}
        for tag in tags:
            by_url.setdefault(self.qos.get(tag).delivery_info["sqs_queue"], []).append(tag)
        for url, receipts in by_url.items():
            client = self.sqs(queue=self._predefined_name(url))
            for start in range(0, len(receipts), BATCH_SIZE):
                _change_visibility(client, url, receipts[start : start + BATCH_SIZE], seconds)
        return tags

    def _predefined_name(self, url: str) -> str | None:
        """The predefined queue of that URL; its client may have keys of its own."""
        return next((name for name, queue in self.predefined_queues.items() if queue["url"] == url), None)

    # -- what kombu does only in a hub, or not at all

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        try:
            super()._put(queue, message, **kwargs)
        except aws_errors.ClientError as exc:
            if not exc.response["Error"]["Code"].endswith(("NonExistentQueue", "QueueDoesNotExist")):
                raise
            # It was deleted after this connection had seen it.
            self._queue_cache.pop(self.canonical_queue_name(queue), None)
            super()._put(queue, message, **kwargs)

    def _delete_message(self, queue_name: str, message: Any) -> None:
        self.sqs(queue=self.canonical_queue_name(queue_name)).delete_message(
            QueueUrl=self._new_queue(queue_name), ReceiptHandle=message["ReceiptHandle"]
        )

    def _purge(self, queue: str) -> int:
        size: int = self._size(queue)
        client = self.sqs(queue=self.canonical_queue_name(queue))
        try:
            client.purge_queue(QueueUrl=self._new_queue(queue))
        except aws_errors.ClientError as exc:
            if not exc.response["Error"]["Code"].endswith("PurgeQueueInProgress"):
                raise
            # SQS purges a queue once a minute.
            return self._delete_waiting(queue, client)
        return size

    def _delete_waiting(self, queue: str, client: Any) -> int:
        count = 0
        self._patience = min(1, self.wait_time_seconds)
        while messages := self._receive_message(queue, BATCH_SIZE).get("Messages"):
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            client.delete_message_batch(QueueUrl=self._new_queue(queue), Entries=entries)
            count += len(messages)
        return count

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """Delete a queue, though this connection may not have bound it."""
        bound = any(self.state.queue_bindings(queue))
        super().queue_delete(queue, if_unused, if_empty, **kwargs)
        if not bound and self._has_queue(queue) and not (if_empty and self._size(queue)):
            self._delete(queue)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        # A queue that is bound twice is deleted twice.
        if self._has_queue(queue):
            super()._delete(queue, *args, **kwargs)
            if not self.predefined_queues:
                self._queue_cache.pop(self.canonical_queue_name(queue), None)

    def _has_queue(self, queue: str, **_: Any) -> bool:
        if not self.predefined_queues:
            # It may have been deleted after this connection had seen it.
            self._queue_cache.pop(self.canonical_queue_name(queue), None)
        try:
            self._resolve_queue_url(queue)
        except (DoesNotExistQueueException, UndefinedQueueException):
            return False
        return True

    def close(self) -> None:
        """Close the channel; what it holds is given back."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        if self._qos is not None and not self.closed:
            self.basic_recover(requeue=True)
        super().close()


class Transport(BaseTransport):  # type: ignore[misc]
    """Amazon SQS, for `sqs://`."""

    Channel = Channel
    hub: Any = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Work in a kombu hub."""
        self.hub = loop
        for channel in self.channels:
            channel.join(loop)
        wait = self.client.transport_options.get("wait_time_seconds", Channel.default_wait_time_seconds)
        client: Any = get_client(loop)
        # The handles keep these, and kombu sets no limits for a request.
        for curl in client._curls:
            curl.setopt(pycurl.CONNECTTIMEOUT, CONNECT_SECONDS)
            curl.setopt(pycurl.TIMEOUT, int(wait) + ANSWER_SECONDS)


def _change_visibility(client: Any, url: str, receipts: Sequence[str], seconds: int) -> None:
    entries = [
        {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
        for number, receipt in enumerate(receipts)
    ]
    try:
        failed = client.change_message_visibility_batch(QueueUrl=url, Entries=entries).get("Failed", ())
    except (aws_errors.BotoCoreError, aws_errors.ClientError) as exc:
        failed = [{"Message": exc}] * len(receipts)
    if failed:
        logger.warning(
            "SQS did not set the visibility of %d messages of %s: %s. %s",
            len(failed),
            url,
            failed[0].get("Message"),
            "They may run twice." if seconds else "They come again when the old one is over.",
        )


def _raise(exc: Exception) -> NoReturn:
    raise exc
