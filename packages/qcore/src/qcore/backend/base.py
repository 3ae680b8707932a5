"""What the stores have in common: codec, buffer, waiting by looking, awaiting, retrying."""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from qcore import (
    errors,  # kombu's classes are looked up there on first use
    states,
)
from qcore.errors import BackendStoreError, ImproperlyConfigured, TimeoutError

from .codec import Codec
from .contract import Backend, GroupLike, OnRecord
from .exceptions import safe_repr
from .meta import as_meta, from_meta
from .record import RequestLike, ResultRecord
from .retrying import RetryPolicy
from .watching import LONGEST_PAUSE_SECONDS, Watcher, pause_after

_MANY = 1000


class BaseBackend(Backend):
    """Base of our stores.

    Args:
        app: the app that it belongs to; its settings are read here.
        url: address of the store.
    """

    supports_native_join = True
    supports_chords = True
    supports_messages = False
    persistent = True
    writes_nothing = False
    _first_pause_seconds = 0.001

    def __init__(self, app: Any, url: str = "") -> None:
        self.app = app
        self._url = url
        self.url = mask_password(url)
        conf = app.conf
        self.expires_seconds = seconds_or_none(conf.result_expires)
        self.chord_expires_seconds = seconds_or_none(conf.result_chord_expires) or self.expires_seconds
        self.failure_expires_seconds = seconds_or_none(conf.result_failure_expires) or self.expires_seconds
        accept = conf.result_accept_content
        self.codec = Codec(
            conf.result_serializer or "json",
            conf.accept_content if accept is None else accept,
            conf.result_compression,
        )
        cache = conf.result_cache_max
        self._cache_limit = -1 if cache is None else int(cache)
        self._start_process()

    def _start_process(self) -> None:
        """Set up what must not be shared between processes."""
        self._pid = os.getpid()
        self._flush_lock = threading.RLock()
        self._buffer_lock = threading.Lock()
        self._buffer: list[Any] = []
        self._watcher = Watcher(self.get_many)
        self._cache: OrderedDict[str, ResultRecord] = OrderedDict()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._start_process()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.url}>"

    # --- writing -------------------------------------------------------------------------------

    def encode_record(self, record: ResultRecord) -> bytes:
        """The record as it is stored, not yet compressed.

        Raises:
            EncodeError: the result cannot be serialized.
        """
        meta = as_meta(record, self.codec.value_to_wire(record.result))
        try:
            return self.codec.encode(meta)
        except errors.EncodeError:
            if not record.extended or not self.codec.encodable(meta["result"]):
                raise
            for field in ("args", "kwargs"):  # only for display; they must not cost the result
                if not self.codec.encodable(meta[field]):
                    meta[field] = safe_repr(meta[field])
            return self.codec.encode(meta)

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: RequestLike | None = None,
    ) -> None:
        if request is None or request.id != task_id:
            record = ResultRecord(
                task_id=task_id,
                status=state,
                result=result,
                traceback=traceback,
                children=[],
                date_done=None if state not in states.READY_STATES else _now(),
                reply_to=None if request is None else request.reply_to,
            )
        else:
            extended = bool(self.app.conf.result_extended)
            record = ResultRecord.of(request, state, result, traceback, extended=extended)
        self.store(record)
        self.flush()

    def _buffer_write(self, write: Any) -> None:
        self._check_process()
        with self._buffer_lock:
            self._buffer.append(write)

    def flush(self) -> None:
        self._check_process()
        if not self._buffer and not self._flush_lock_held():
            return
        # Held while writing, so that a flush of another thread, which may have left its writes to this one,
        # returns only when they are durable.
        with self._flush_lock:
            while self._flush_once():
                pass  # the end of a chord writes too

    def _flush_once(self) -> bool:
        with self._buffer_lock:
            writes, self._buffer = self._buffer, []
        if not writes:
            return False
        try:
            self._write(writes)
        except BackendStoreError:
            with self._buffer_lock:
                self._buffer[:0] = writes
            raise
        return True

    def _flush_lock_held(self) -> bool:
        if self._flush_lock.acquire(blocking=False):
            self._flush_lock.release()
            return False
        return True

    def _write(self, writes: list[Any]) -> None:
        """Make the buffered writes durable; raise BackendStoreError when that is impossible."""

    # --- reading -------------------------------------------------------------------------------

    def get(self, task_id: str) -> ResultRecord:
        cached = self._cache.get(task_id)
        if cached is not None:
            return cached
        record = self._read((task_id,)).get(task_id)
        if record is None:
            return ResultRecord(task_id=task_id)
        self._remember(record)
        return record

    def get_many(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        if len(task_ids) <= _MANY:
            return self._read(task_ids)
        found: dict[str, ResultRecord] = {}
        for start in range(0, len(task_ids), _MANY):
            found.update(self._read(task_ids[start : start + _MANY]))
        return found

    @abstractmethod
    def _read(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        """The records of those ids that are stored, at most 1000."""

    def _remember(self, record: ResultRecord) -> None:
        if self._cache_limit >= 0 and record.ready:
            self._cache[record.task_id] = record
            while self._cache_limit and len(self._cache) > self._cache_limit:
                self._cache.popitem(last=False)

    def decode_record(self, task_id: str, payload: Any) -> ResultRecord:
        """The record of what lies in the store."""
        return from_meta(task_id, self.codec.decode(self.codec.unpack(payload)))

    def exists(self, task_id: str) -> bool:
        return bool(self._read((task_id,)))

    # --- waiting -------------------------------------------------------------------------------

    def wait(
        self,
        task_ids: Collection[str],
        timeout: float | None = None,
        *,
        interval: float | None = None,
        on_message: OnRecord | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[ResultRecord]:
        if on_message is not None and not self.supports_messages:
            raise ImproperlyConfigured(
                f"{type(self).__name__} does not support on_message: state changes are not pushed, use a "
                "result store with messages (redis, rpc)"
            )
        return self._wait_by_looking(task_ids, timeout, interval, on_interval)

    def _wait_by_looking(
        self,
        task_ids: Collection[str],
        timeout: float | None,
        interval: float | None,
        on_interval: Callable[[], Any] | None,
    ) -> Iterator[ResultRecord]:
        pending = dict.fromkeys(task_ids)
        longest = LONGEST_PAUSE_SECONDS if interval is None else max(interval, 0.001)
        start = time.monotonic()
        seen: object = None
        while pending:
            token = self._change_token()
            look_seconds = 0.0
            if token is None or token != seen:
                seen = token
                before = time.monotonic()
                for task_id, record in self.get_many(list(pending)).items():
                    if record.ready:
                        del pending[task_id]
                        self._remember(record)
                        yield record
                look_seconds = time.monotonic() - before
            if not pending:
                return
            waited = time.monotonic() - start
            if timeout is not None and waited >= timeout:
                raise TimeoutError(f"{len(pending)} of the awaited tasks were not ready in {timeout} s")
            if on_interval is not None:
                on_interval()
            self._while_waiting(waited)
            # Looking for many takes long itself: pause at least as long, so that the store gets other work done.
            pause = max(look_seconds, pause_after(waited, longest, self._first_pause_seconds))
            time.sleep(pause if timeout is None else max(0.0, min(pause, timeout - waited)))

    def _change_token(self) -> object:
        """Something that differs once the store has changed; None when the store cannot tell."""
        return None

    def _while_waiting(self, waited_seconds: float) -> None:
        """Called at each step of a wait; for chores that nobody else may do."""

    def watch(self, task_id: str, callback: OnRecord) -> Callable[[], None]:
        self._check_process()
        return self._watcher.add(task_id, callback)

    async def await_record(self, task_id: str, timeout: float | None = None) -> ResultRecord:
        from .awaiting import (
            await_record,  # asyncio takes long to import, and is there already where this runs
        )

        return await await_record(self.watch, task_id, timeout)

    def on_send(self, task_id: str) -> None:
        return None

    # --- groups --------------------------------------------------------------------------------

    def encode_group(self, group: GroupLike) -> bytes:
        """The group's tuple as it is stored (W16-02)."""
        return self.codec.encode({"result": group.as_tuple()})

    def decode_group(self, payload: Any) -> Any:
        """The tuple of a stored group."""
        return self.codec.decode(self.codec.unpack(payload))["result"]

    def add_to_chord(self, group_id: str, result: Any = None) -> None:
        raise ImproperlyConfigured(f"{type(self).__name__} does not support chords")

    def start_chord(
        self, group_id: str, body: Mapping[str, Any], size: int, header: GroupLike, nested: bool
    ) -> None:
        raise ImproperlyConfigured(
            f"{type(self).__name__} does not support chords: choose another result_backend, "
            "such as redis:// or db+postgresql://"
        )

    # --- housekeeping --------------------------------------------------------------------------

    def retry_policy(self, default: RetryPolicy) -> RetryPolicy:
        """`default`, or the policy of the settings when `result_backend_always_retry` is on."""
        conf = self.app.conf
        if not conf.result_backend_always_retry:
            return default
        limit = conf.result_backend_max_retries
        return RetryPolicy(
            max_retries=None if limit is None or limit == float("inf") else limit,
            start=conf.result_backend_base_sleep_between_retries_ms / 1000,
            longest=conf.result_backend_max_sleep_between_retries_ms / 1000,
        )

    def cleanup(self) -> None:
        return None

    def close(self) -> None:
        self.flush()
        self._watcher.close()


def _now() -> Any:
    from qcore.times import utc_now

    return utc_now()


def seconds_or_none(value: float | timedelta | None) -> int | None:
    """Whole seconds of a setting; None for 0 and None, which mean for ever."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return max(1, int(seconds)) if seconds > 0 else None


def mask_password(url: str) -> str:
    """`url` with `**` for its password."""
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    if not separator or not at or ":" not in credentials:
        return url
    return f"{scheme}://{credentials.partition(':')[0]}:**@{host}"
