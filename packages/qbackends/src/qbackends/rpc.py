"""Results as messages to the client that sent the task (table W19).

Each client thread has a reply queue, named by the app's `oid`, which its tasks carry as `reply_to`. The process
reads a reply queue when somebody waits for a task that was sent with it. A result can be read by the process
that sent the task only, and once: what is read is kept here.
"""

from __future__ import annotations

import builtins
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NoReturn, cast

from attrs import define, field, frozen

from qcore import serialization
from qcore.backend.base import BaseBackend
from qcore.backend.contract import GroupLike, OnRecord
from qcore.backend.meta import from_meta
from qcore.backend.record import RequestLike, ResultRecord
from qcore.edge import kombu
from qcore.errors import BackendStoreError, ImproperlyConfigured, TimeoutError
from qcore.producer import Prepared

logger = logging.getLogger(__name__)

_KEPT_RECORDS = 65536
_SENT_IDS = 100_000
_FOLLOWER_CHECK_SECONDS = 0.5
_RECONNECT_PAUSE_SECONDS = 0.2


@frozen
class _Reply:
    queue: str
    task_id: str
    body: bytes


@define(eq=False)
class _Waiter:
    ids: set[str]
    records: deque[ResultRecord] = field(factory=deque)
    event: threading.Event = field(factory=threading.Event)


class RPCBackend(BaseBackend):
    """The rpc result store: `rpc://`. It knows no chords, and keeps no groups."""

    supports_chords = False
    supports_messages = True
    persistent = False

    def __init__(self, app: Any, url: str = "rpc://") -> None:
        super().__init__(app, url)
        self.persistent = bool(app.conf.result_persistent)

    def _start_process(self) -> None:
        super()._start_process()
        self._lock = threading.RLock()
        self._records: OrderedDict[str, ResultRecord] = OrderedDict()
        self._sent: OrderedDict[str, str] = OrderedDict()
        self._readers: dict[str, _Reader] = {}
        self._waiters: list[_Waiter] = []

    # --- writing: in workers ---------------------------------------------------------------------

    def store(self, record: ResultRecord) -> None:
        if record.reply_to:
            body = self.encode_record(record)
            self._buffer_write(_Reply(record.reply_to, record.task_id, body))

    def _write(self, writes: list[Any]) -> None:
        messages = [
            Prepared(
                body=reply.body,
                content_type=self.codec.content_type,
                content_encoding=self.codec.content_encoding,
                headers={},
                properties={
                    "correlation_id": reply.task_id,
                    "delivery_mode": 2 if self.app.conf.result_persistent else 1,
                },
                priority=0,
                exchange="",
                routing_key=reply.queue,
            )
            for reply in writes
        ]
        try:
            cast(Any, self.app).amqp.producer.publish_now(messages)
        except kombu("kombu.exceptions").OperationalError as exc:
            raise BackendStoreError(f"results cannot be sent to their clients: {exc}") from exc

    def chord_part(self, request: RequestLike, state: str, result: Any) -> None:
        return None

    # --- reading: in clients ---------------------------------------------------------------------

    def on_send(self, task_id: str) -> None:
        self._check_process()
        queue = self.app.oid
        self._reader(queue).declare()
        with self._lock:
            self._sent[task_id] = queue
            if len(self._sent) > _SENT_IDS:
                self._sent.popitem(last=False)

    def _reader(self, queue: str) -> _Reader:
        with self._lock:
            reader = self._readers.get(queue)
            if reader is None:
                expires = self.expires_seconds
                reader = self._readers[queue] = _Reader(self.app, queue, expires, self._arrived)
            return reader

    def _readers_of(self, task_ids: Collection[str]) -> list[_Reader]:
        own = self.app.oid
        return [self._reader(queue) for queue in {self._sent.get(task_id, own) for task_id in task_ids}]

    def _arrived(self, message: Any) -> None:
        """A reply was read."""
        properties = message.properties
        try:
            meta = serialization.loads(
                message.body, message.content_type, message.content_encoding, accept=self.codec.accepted
            )
            record = from_meta(str(properties.get("correlation_id")), meta)
        except Exception:  # whoever can write to the queue may have sent anything; the next one may be good
            logger.exception("a reply that cannot be read as a result was dropped")
            return
        with self._lock:
            self._records[record.task_id] = record
            self._records.move_to_end(record.task_id)
            if len(self._records) > _KEPT_RECORDS:
                dropped, _ = self._records.popitem(last=False)
                logger.warning("the result of task %s was not asked for and is dropped", dropped)
            for waiter in self._waiters:
                if record.task_id in waiter.ids:
                    waiter.records.append(record)
                    waiter.event.set()

    def _read(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        self._check_process()
        for reader in self._readers_of(task_ids):
            reader.drain()
        with self._lock:
            return {task_id: self._records[task_id] for task_id in task_ids if task_id in self._records}

    def wait(
        self,
        task_ids: Collection[str],
        timeout: float | None = None,
        *,
        interval: float | None = None,
        on_message: OnRecord | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[ResultRecord]:
        self._check_process()
        end = None if timeout is None else time.monotonic() + timeout
        waiter = _Waiter(set(task_ids))
        with self._lock:
            self._waiters.append(waiter)
            waiter.records.extend(self._records[i] for i in task_ids if i in self._records)
        readers = self._readers_of(task_ids)
        try:
            while waiter.ids:
                while waiter.records:
                    record = waiter.records.popleft()
                    if record.task_id not in waiter.ids:
                        continue
                    if on_message is not None:
                        on_message(record)
                    if record.ready:
                        waiter.ids.discard(record.task_id)
                        yield record
                if waiter.ids:
                    self._wait_for_more(waiter, readers, end, timeout, on_interval)
        finally:
            with self._lock:
                self._waiters.remove(waiter)
                for other in self._waiters:
                    other.event.set()  # one of them reads on

    def _wait_for_more(
        self,
        waiter: _Waiter,
        readers: list[_Reader],
        end: float | None,
        timeout: float | None,
        on_interval: Callable[[], Any] | None,
    ) -> None:
        left = _FOLLOWER_CHECK_SECONDS
        if end is not None:
            left = min(left, end - time.monotonic())
        if left <= 0:
            for reader in readers:
                reader.drain()
            if waiter.records:
                return
            raise TimeoutError(f"{len(waiter.ids)} of the awaited tasks were not ready in {timeout} s")
        if on_interval is not None:
            on_interval()
        share = left / len(readers)
        have_read = [reader.read(share, waiter.records) for reader in readers]
        if not any(have_read):
            waiter.event.wait(left)  # other threads are reading for us
            waiter.event.clear()

    def exists(self, task_id: str) -> bool:
        return bool(self._read((task_id,)))

    def forget(self, task_id: str) -> None:
        with self._lock:
            self._records.pop(task_id, None)
            self._sent.pop(task_id, None)
        self._cache.pop(task_id, None)

    # --- what messages cannot do -----------------------------------------------------------------

    def _refuse_group(self) -> NoReturn:
        raise ImproperlyConfigured(
            "rpc:// cannot save groups: results are messages that only the client that sent the tasks gets. "
            "Use another result_backend, such as redis://"
        )

    def save_group(self, group: GroupLike) -> None:
        self._refuse_group()

    def restore_group(self, group_id: str) -> Any | None:
        self._refuse_group()

    def delete_group(self, group_id: str) -> None:
        return None

    def close(self) -> None:
        super().close()
        with self._lock:
            readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            reader.close()


class _Reader:
    """Consumes one reply queue; used by one thread at a time."""

    def __init__(
        self, app: Any, queue: str, expires_seconds: int | None, on_message: Callable[[Any], None]
    ) -> None:
        self._app = app
        self._queue_name = queue
        self._expires = expires_seconds
        self._on_message = on_message
        self._busy = threading.RLock()
        self._connection: Any = None
        self._consuming = False

    def declare(self) -> None:
        """Make the queue, once."""
        if self._connection is None:
            with self._busy:
                if self._connection is None:
                    self._open()

    def _open(self) -> None:
        connection = self._app.connection_for_read()
        arguments = {} if self._expires is None else {"expires": float(self._expires)}
        queue = kombu().Queue(
            self._queue_name,
            exchange=kombu().Exchange(""),
            routing_key=self._queue_name,
            durable=True,
            exclusive=False,
            auto_delete=True,
            **arguments,
        )
        try:
            channel = connection.default_channel
            queue(channel).declare()
        except BaseException:
            connection.release()
            raise
        self._connection, self._queue = connection, queue

    def _consume(self) -> None:
        """Start consuming; the consumer stays, as the queue goes with its last consumer."""
        if self._connection is None:
            self._open()
        if not self._consuming:
            consumer = kombu().Consumer(
                self._connection.default_channel,
                queues=[self._queue],
                no_ack=True,
                on_message=self._on_message,
                accept=None,
            )
            consumer.consume(no_ack=True)
            self._consumer = consumer
            self._consuming = True

    def read(self, seconds: float, arrived: deque[ResultRecord]) -> bool:
        """Read until something has arrived in `arrived`, at most `seconds`; False when another thread reads."""
        if not self._busy.acquire(blocking=False):
            return False
        try:
            end = time.monotonic() + seconds
            while not arrived:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._drain_one(left)
        finally:
            self._busy.release()
        return True

    def drain(self) -> None:
        """Read what is there, without waiting; nothing when another thread reads."""
        if self._busy.acquire(blocking=False):
            try:
                while self._drain_one(0.01):
                    pass
            finally:
                self._busy.release()

    def _drain_one(self, seconds: float) -> bool:
        connection = self._connection
        failures: tuple[type[BaseException], ...] = (OSError,)
        try:
            self._consume()
            connection = self._connection
            failures = (*connection.connection_errors, *connection.channel_errors, OSError)
            connection.drain_events(timeout=seconds)
        except builtins.TimeoutError:  # socket.timeout
            return False
        except failures as exc:
            logger.warning("reading results from the broker failed (%s); connecting again", exc)
            self._drop()
            time.sleep(min(seconds, _RECONNECT_PAUSE_SECONDS))
            return False
        return True

    def _drop(self) -> None:
        connection, self._connection, self._consuming = self._connection, None, False
        if connection is not None:
            try:
                connection.release()
            except Exception:  # transports raise anything while closing what is broken
                logger.debug("closing a connection failed", exc_info=True)

    def close(self) -> None:
        """Close the connection."""
        with self._busy:
            self._drop()
