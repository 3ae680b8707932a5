"""The part of the channel that publishes: many messages in one write, with one wait until the broker has them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from qbrokers.amqp.bases import BaseChannel, Basic, ChannelMethods, RecoverableConnectionError
from qbrokers.amqp.batches import PublishBatch
from qbrokers.amqp.confirming import Answered, Batch, Confirms, Returned
from qbrokers.amqp.contract import Connection
from qbrokers.amqp.delaying import delay_of
from qbrokers.amqp.errors import MessageReturned, PartlyPublished, PublishRefused, PublishTimeout
from qbrokers.amqp.messages import name_of
from qbrokers.batching import ETA_PROPERTY, Publication

PERSISTENT = 2


class PublishingChannel(BaseChannel):  # type: ignore[misc]
    """A channel that publishes; consuming and answering are added by `channel.Channel`."""

    supports_delay = True
    connection: Connection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.confirms = Confirms()
        super().__init__(*args, **kwargs)

    @property
    def closed(self) -> bool:
        """Whether the channel cannot be used any more."""
        return self.connection is None or not self.is_open

    def _alive(self) -> Connection:
        if self.connection is None or self.connection.channels is None:
            raise RecoverableConnectionError("the channel is closed")
        return self.connection

    def basic_publish(
        self,
        msg: Any,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        argsig: str = "Bssbb",
    ) -> None:
        """Publish, and wait for the confirmation of a task, and of a persistent or mandatory message.

        Raises:
            MessageReturned: It is mandatory and no queue takes it.
            PublishRefused: The broker does not take it.
            PublishTimeout: No confirmation within `confirm_timeout`, `timeout` or `publish_timeout` seconds.
            ChannelError: The server has closed the channel over it (no such exchange, too large).
        """
        self._publish_all([(msg, exchange, routing_key)], mandatory, immediate, confirm_timeout or timeout)

    def publish_many(self, publications: Sequence[Publication]) -> None:
        """Publish messages in order, in one write (a few when they are large) and with one wait.

        Raises:
            PartlyPublished: The broker took some of them only.
            See `basic_publish` for the others.
        """
        if publications:
            self._publish_all(
                [(p.message, p.exchange, p.routing_key) for p in publications], False, False, None
            )

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """What `kombu.Producer.batch` collects messages in."""
        return PublishBatch(self, max_size)

    def _publish_all(
        self, messages: list[tuple[Any, str, str]], mandatory: bool, immediate: bool, timeout: float | None
    ) -> None:
        connection = self._alive()
        seconds = connection.options.publish_timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        messages = [self._route(*message) for message in messages]
        confirm = connection.options.confirm_publish and (
            mandatory or any(_is_waited_for(msg) for msg, *_ in messages)
        )
        batch = Batch(len(messages)) if confirm else None
        if batch is None:
            # Waiting for a confirmation reads all the same.
            connection.read_now_and_then()
        if connection.blocked and not connection.in_loop:
            self._wait_for(lambda: not connection.blocked, deadline, seconds)
        if confirm:
            if connection.is_doubtful() and not connection.blocked:
                self._prove_alive(seconds / 3)
            self.select_confirms()
        try:
            with connection.transport.having_timeout(seconds), connection.corked():
                for msg, exchange, routing_key in messages:
                    answered = None if batch is None else batch.expect(name_of(msg, exchange, routing_key))
                    self.send_publish(msg, exchange, routing_key, mandatory, immediate, answered)
        except TimeoutError as exc:
            connection.broken = True
            raise PublishTimeout(_too_late(connection, seconds)) from exc
        if batch is not None:
            self._wait_for(lambda: not batch.open, deadline, seconds)
            self._judge(batch)

    def _prove_alive(self, seconds: float) -> None:
        """Ask something that the server answers at once, so that no message goes to a server that is gone.

        Raises:
            RecoverableConnectionError: It did not answer; nothing was published, and there is time for another try.
        """
        self.send_method(ChannelMethods.Flow, "b", (True,))
        self.wait(ChannelMethods.FlowOk, timeout=seconds)

    def send_publish(
        self,
        msg: Any,
        exchange: str,
        routing_key: str,
        mandatory: bool,
        immediate: bool,
        answered: Answered | None,
    ) -> None:
        """Write the frames of one message; `answered` is called when the broker has taken or refused it."""
        self.send_method(Basic.Publish, "Bssbb", (0, exchange, routing_key, mandatory, immediate), msg)
        if self.confirms.selected:
            self.confirms.published(answered)

    def select_confirms(self) -> None:
        """Number what is published from now on, so that the broker can answer for it."""
        if not self.confirms.selected:
            self.confirm_select(nowait=True)
            self.confirms.selected = True

    def _route(self, msg: Any, exchange: str, routing_key: str) -> tuple[Any, str, str]:
        """Where a message goes first: into the delay queues when it is for later."""
        due = msg.properties.get(ETA_PROPERTY)
        if due is None:
            return msg, exchange, routing_key
        return self._alive().delays.route(msg, exchange, routing_key, delay_of(float(due), time.time()))

    def _wait_for(self, done: Any, deadline: float, seconds: float) -> None:
        connection = self._alive()
        connection.waiters += 1
        try:
            while not done():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.drain_events(timeout=left)
        except TimeoutError as exc:
            connection.broken = True
            raise PublishTimeout(_too_late(connection, seconds)) from exc
        finally:
            connection.waiters -= 1
            connection.waited()

    def _judge(self, batch: Batch) -> None:
        returned, self.confirms.returned = self.confirms.returned, []
        if batch.refused:
            if len(batch.refused) == batch.size:
                raise PublishRefused(batch.refused)
            raise PartlyPublished(batch.refused)
        if returned:
            raise MessageReturned([r.name for r in returned], returned[0].reason, returned[0].code)

    def basic_publish_confirm(self, *args: Any, **kwargs: Any) -> None:
        """`basic_publish`, which confirms by itself."""
        self.basic_publish(*args, **kwargs)

    def _on_basic_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._alive().silent = True
        self.confirms.answer(delivery_tag, multiple, True)
        super()._on_basic_ack(delivery_tag, multiple)

    def _on_basic_nack(self, delivery_tag: int, multiple: bool) -> None:
        self._alive().silent = True
        self.confirms.answer(delivery_tag, multiple, False)
        super()._on_basic_nack(delivery_tag, multiple)

    def _on_basic_return(
        self, reply_code: int, reply_text: str, exchange: str, routing_key: str, message: Any
    ) -> None:
        if self.events.get("basic_return") or not self.confirms.selected:
            super()._on_basic_return(reply_code, reply_text, exchange, routing_key, message)
            return
        self.confirms.returned.append(
            Returned(name_of(message, exchange, routing_key), reply_text, reply_code)
        )


def _is_waited_for(msg: Any) -> bool:
    # A task that is transient dies with the broker, but not on its way there.
    properties = msg.properties
    if properties.get("delivery_mode", PERSISTENT) == PERSISTENT:
        return True
    return "task" in (properties.get("application_headers") or ())


def _too_late(connection: Connection, seconds: float) -> str:
    why = (
        "the broker takes no messages for now (memory or disk alarm), see its log"
        if connection.blocked
        else "the broker has not confirmed that it has the messages"
    )
    return f"publishing took longer than {seconds:g} s: {why}"
