"""Results in Redis, in the layout of tables W16 and W17: shared with Celery's clients and workers.

Writing: what tasks leave is buffered, and a flush sends it in one round trip: all results in one script call, one
further script call per chord part. Reading: a key per task, and a message on a channel of the same name at every
change.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from attrs import frozen

from qcore import states
from qcore.backend.base import BaseBackend
from qcore.backend.chords import arranged, fail_body, send_body, value_of_part
from qcore.backend.contract import GroupLike, OnRecord
from qcore.backend.record import RequestLike, ResultRecord
from qcore.backend.retrying import RetryPolicy
from qcore.errors import (
    BackendGetMetaError,
    BackendStoreError,
    ChordError,
    ImproperlyConfigured,
    MissingPackageError,
    TimeoutError,
)

from .redis_listener import Listener, Waiter
from .redis_scripts import CHORD_DONE, CHORD_PART, STORE
from .redis_url import make_pool

logger = logging.getLogger(__name__)

TASK_PREFIX = "celery-task-meta-"
GROUP_PREFIX = "celery-taskset-meta-"

_LARGEST_VALUE_BYTES = 512 * 1024 * 1024
_RESULTS_PER_CALL = 500
_LATE_PARTS_SECONDS = 300
_LOOK_AGAIN_SECONDS = 2.0


@frozen
class _Result:
    key: str
    value: bytes
    seconds: int
    """To live; 0 for ever."""
    guarded: bool


@frozen
class _Part:
    group_id: str
    task_id: str
    value: bytes
    score: str
    failed: bool
    failure: Any
    """State and wire form of the result."""
    body: Any
    token: str


class RedisBackend(BaseBackend):
    """The Redis result store.

    Args:
        app: the app.
        url: `redis://:password@host:port/db`, `rediss://…`, `redis+socket:///path?virtual_host=db`,
            `sentinel://host:port/db;sentinel://…`.

    Raises:
        MissingPackageError: redis-py is not installed.
        ImproperlyConfigured: the URL cannot be used.
    """

    supports_messages = True

    def __init__(self, app: Any, url: str = "redis://") -> None:
        try:
            import redis
        except ImportError as exc:
            raise MissingPackageError("the result backend 'redis'", "qbackends[redis]") from exc
        conf = app.conf
        self._options: dict[str, Any] = dict(conf.result_backend_transport_options or {})
        self._failures: tuple[type[BaseException], ...] = (
            redis.ConnectionError,
            redis.TimeoutError,
            redis.BusyLoadingError,
            redis.ReadOnlyError,
            OSError,
            *(self._options.get("additional_connection_errors") or ()),
        )
        self._prefix = _key_prefix(self._options.get("global_keyprefix"))
        self._ordered = bool(self._options.get("result_chord_ordered", True))
        self._configured_url = url
        super().__init__(app, url)
        self._policy = self.retry_policy(_policy(self._options.get("retry_policy")))
        self._scripted_guard = self.codec.is_json and not self.codec.compression
        join_timeout = conf.result_chord_join_timeout or 5.0
        self._claim_seconds = max(5, int(join_timeout * 2))

    def _start_process(self) -> None:
        super()._start_process()
        import redis

        self._pool = make_pool(self._configured_url, self.app.conf, self._options)
        self.client: Any = redis.Redis(connection_pool=self._pool)
        self._store_script = self.client.register_script(STORE)
        self._part_script = self.client.register_script(CHORD_PART)
        self._done_script = self.client.register_script(CHORD_DONE)
        self._listener = Listener(self._pool.get_connection, self._pool.release, self._is_failure)
        self._watch = _Watch(self)

    # --- names ---------------------------------------------------------------------------------

    def task_key(self, task_id: str) -> str:
        """Key and channel of a task's record."""
        return f"{self._prefix}{TASK_PREFIX}{task_id}"

    def group_key(self, group_id: str, suffix: str = "") -> str:
        """Key of a saved group, or with a suffix of a chord's books."""
        return f"{self._prefix}{GROUP_PREFIX}{group_id}{suffix}"

    # --- talking to the server -----------------------------------------------------------------

    def _is_failure(self, exc: BaseException) -> bool:
        return isinstance(exc, self._failures)

    def _ask(self, operation: Callable[[], Any], what: str) -> Any:
        """The answer to a question; raises BackendGetMetaError when the server stays away."""
        self._check_process()
        try:
            return self._policy.call(operation, self._is_failure, f"{what} in Redis {self.url}")
        except self._failures as exc:
            raise BackendGetMetaError(f"cannot read from the result store {self.url}: {exc}") from exc

    def _tell(self, operation: Callable[[], Any], what: str) -> Any:
        self._check_process()
        try:
            return self._policy.call(operation, self._is_failure, f"{what} in Redis {self.url}")
        except self._failures as exc:
            raise BackendStoreError(f"cannot write to the result store {self.url}: {exc}") from exc

    # --- writing -------------------------------------------------------------------------------

    def store(self, record: ResultRecord) -> None:
        value = self.codec.pack(self.encode_record(record))
        if len(value) > _LARGEST_VALUE_BYTES:
            raise BackendStoreError(
                f"the result has {len(value)} bytes, more than a Redis value can hold (512 MiB): "
                "store it elsewhere and return where it is",
                state=record.status,
                task_id=record.task_id,
            )
        failed = record.status == states.FAILURE
        seconds = (self.failure_expires_seconds if failed else self.expires_seconds) or 0
        self._buffer_write(_Result(self.task_key(record.task_id), value, seconds, record.guarded))

    def chord_part(self, request: RequestLike, state: str, result: Any) -> None:
        group_id = request.group
        if not group_id or not request.chord or not request.id:
            return
        index = request.group_index
        wire = self.codec.value_to_wire(result)
        value = self.codec.encode([1, request.id, state, wire])
        score = "+inf" if index is None else str(index)
        failed = state in states.PROPAGATE_STATES
        self._buffer_write(
            _Part(group_id, request.id, value, score, failed, (state, wire), request.chord, uuid4().hex)
        )

    def _write(self, writes: list[Any]) -> None:
        answers = self._tell(lambda: self._send(writes), "storing results")
        parts = [write for write in writes if isinstance(write, _Part)]
        for part, answer in zip(parts, answers, strict=True):
            if answer and answer[0]:
                self._finish_chord(part, answer)

    def _send(self, writes: list[Any]) -> list[Any]:
        """Everything in one round trip; the answers to the chord parts."""
        results = [write for write in writes if isinstance(write, _Result)]
        if not self._scripted_guard:
            results = self._without_final(results)
        pipe = self.client.pipeline(transaction=False)
        calls = 0
        for start in range(0, len(results), _RESULTS_PER_CALL):
            some = results[start : start + _RESULTS_PER_CALL]
            values = itertools.chain.from_iterable(
                (write.value, write.seconds, "1" if write.guarded and self._scripted_guard else "0")
                for write in some
            )
            self._store_script(keys=[write.key for write in some], args=list(values), client=pipe)
            calls += 1
        for write in writes:
            if isinstance(write, _Part):
                self._part_script(keys=self._part_keys(write), args=self._part_args(write), client=pipe)
        return list(pipe.execute())[calls:]

    def _without_final(self, results: list[_Result]) -> list[_Result]:
        """Those that do not overwrite a SUCCESS; for content that the server's script cannot read."""
        guarded = [write.key for write in results if write.guarded]
        if not guarded:
            return results
        found = dict(zip(guarded, self.client.mget(guarded), strict=True))
        return [
            write
            for write in results
            if found.get(write.key) is None
            or self.decode_record("", found[write.key]).status != states.SUCCESS
        ]

    def _part_keys(self, part: _Part) -> list[str]:
        return [self.group_key(part.group_id, suffix) for suffix in (".j", ".t", ".s", ".d", "", ".c")]

    def _part_args(self, part: _Part) -> list[Any]:
        return [
            part.task_id,
            part.value,
            1 if self._ordered else 0,
            part.score,
            self.chord_expires_seconds or 0,
            self.expires_seconds or 0,
            self._claim_seconds,
            part.token,
            1 if part.failed else 0,
        ]

    def _finish_chord(self, part: _Part, answer: Sequence[Any]) -> None:
        try:
            if answer[0] == 2:
                value_of_part(part.task_id, *part.failure)
            values = self._values(answer[1], answer[2])
        except ChordError as error:
            fail_body(self.app, part.body, error)
        except Exception as exc:  # the books cannot be read: the body must not stay pending
            logger.exception("the parts of chord %s cannot be joined; its body fails", part.group_id)
            fail_body(self.app, part.body, ChordError(f"Join error: {exc!r}"))
        else:
            send_body(self.app, part.body, values)
        keys = [self.group_key(part.group_id, suffix) for suffix in (".c", ".j", ".t", ".s", ".d")]
        self._tell(
            lambda: self._done_script(keys=keys, args=[part.token, _LATE_PARTS_SECONDS]), "closing a chord"
        )

    def _values(self, encoded: Sequence[bytes], group: bytes | None) -> list[Any]:
        parts = [self.codec.decode(part) for part in encoded]
        if group is not None:
            return arranged(self.decode_group(group), parts)
        return [value_of_part(part[1], part[2], part[3]) for part in parts]

    # --- reading -------------------------------------------------------------------------------

    def _read(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        keys = [self.task_key(task_id) for task_id in task_ids]
        if len(keys) == 1:
            payloads = [self._ask(lambda: self.client.get(keys[0]), "reading a result")]
        else:
            payloads = self._ask(lambda: self.client.mget(keys), "reading results") if keys else []
        return {
            task_id: self.decode_record(task_id, payload)
            for task_id, payload in zip(task_ids, payloads, strict=True)
            if payload is not None
        }

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
        pending = {self.task_key(task_id): task_id for task_id in task_ids}
        end = None if timeout is None else time.monotonic() + timeout
        waiter = Waiter()
        try:
            if timeout == 0:
                waiter.to_look_up.extend(pending)
            else:
                self._listener.add(waiter, pending)
            while pending:
                for record in self.arrivals(waiter, pending):
                    if on_message is not None:
                        on_message(record)
                    if record.ready:
                        key = self.task_key(record.task_id)
                        del pending[key]
                        self._listener.remove(waiter, (key,))
                        self._remember(record)
                        yield record
                if pending:
                    self._wait_for_more(waiter, pending, end, timeout, on_interval)
        finally:
            self._listener.remove(waiter, list(waiter.channels))

    def _wait_for_more(
        self,
        waiter: Waiter,
        pending: Mapping[str, str],
        end: float | None,
        timeout: float | None,
        on_interval: Callable[[], Any] | None,
    ) -> None:
        left = _LOOK_AGAIN_SECONDS
        if end is not None:
            left = min(left, end - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"{len(pending)} of the awaited tasks were not ready in {timeout} s")
        if on_interval is not None:
            on_interval()
            left = min(left, 1.0)
        self._listener.wait(waiter, left)
        if not waiter.messages and not waiter.to_look_up and left == _LOOK_AGAIN_SECONDS:
            waiter.to_look_up.extend(pending)  # the connection may be dead without our knowing

    def arrivals(self, waiter: Waiter, pending: Mapping[str, str]) -> Iterator[ResultRecord]:
        """The records that arrived for `waiter` since the last call, those that must be looked up included."""
        if waiter.to_look_up:
            keys = {waiter.to_look_up.popleft() for _ in range(len(waiter.to_look_up))}
            wanted = [pending[key] for key in keys if key in pending]
            if wanted:
                yield from self.get_many(wanted).values()
        while waiter.messages:
            key, payload = waiter.messages.popleft()
            if key in pending:
                yield self.decode_record(pending[key], payload)

    def watch(self, task_id: str, callback: OnRecord) -> Callable[[], None]:
        self._check_process()
        return self._watch.add(task_id, callback)

    def forget(self, task_id: str) -> None:
        self._cache.pop(task_id, None)
        self._tell(lambda: self.client.delete(self.task_key(task_id)), "forgetting a result")

    # --- groups and chords ---------------------------------------------------------------------

    def save_group(self, group: GroupLike) -> None:
        payload = self.codec.pack(self.encode_group(group))
        seconds = self.expires_seconds
        self._tell(lambda: self.client.set(self.group_key(group.id), payload, ex=seconds), "saving a group")

    def restore_group(self, group_id: str) -> Any | None:
        payload = self._ask(lambda: self.client.get(self.group_key(group_id)), "reading a group")
        return None if payload is None else self.decode_group(payload)

    def delete_group(self, group_id: str) -> None:
        self._tell(lambda: self.client.delete(self.group_key(group_id)), "deleting a group")

    def start_chord(
        self, group_id: str, body: Mapping[str, Any], size: int, header: GroupLike, nested: bool
    ) -> None:
        group = self.encode_group(header) if nested else None

        def start() -> None:
            pipe = self.client.pipeline(transaction=True)
            pipe.delete(*(self.group_key(group_id, suffix) for suffix in (".c", ".j", ".t", ".d", "")))
            pipe.set(self.group_key(group_id, ".s"), size, ex=self.chord_expires_seconds)
            if group is not None:
                pipe.set(self.group_key(group_id), group, ex=self.chord_expires_seconds)
            pipe.execute()

        self._tell(start, "starting a chord")

    def add_to_chord(self, group_id: str, result: Any = None) -> None:
        self._tell(lambda: self.client.incr(self.group_key(group_id, ".t")), "growing a chord")

    def close(self) -> None:
        super().close()
        self._watch.close()
        self._listener.close()
        self._pool.disconnect()


class _Watch:
    """A thread that listens for the results that have callbacks; it ends when there are none."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[OnRecord]] = {}
        self._waiter = Waiter()
        self._thread: threading.Thread | None = None

    def add(self, task_id: str, callback: OnRecord) -> Callable[[], None]:
        key = self._backend.task_key(task_id)
        with self._lock:
            self._callbacks.setdefault(task_id, []).append(callback)
            if key not in self._waiter.channels:
                self._backend._listener.add(self._waiter, (key,))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="result-listener", daemon=True)
                self._thread.start()
        self._waiter.event.set()

        def stop() -> None:
            with self._lock:
                callbacks = self._callbacks.get(task_id, [])
                if callback in callbacks:
                    callbacks.remove(callback)
                if not callbacks:
                    self._forget(task_id)

        return stop

    def _forget(self, task_id: str) -> list[OnRecord]:
        callbacks = self._callbacks.pop(task_id, [])
        self._backend._listener.remove(self._waiter, (self._backend.task_key(task_id),))
        self._waiter.event.set()
        return callbacks

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._callbacks:
                    self._thread = None
                    return
                pending = {self._backend.task_key(task_id): task_id for task_id in self._callbacks}
            try:
                self._pass(pending)
            except Exception:  # the server is away; the next pass tells whether it is back
                logger.warning("waiting for results failed; trying again", exc_info=True)
                time.sleep(_LOOK_AGAIN_SECONDS / 2)

    def _pass(self, pending: dict[str, str]) -> None:
        self._backend._listener.wait(self._waiter, _LOOK_AGAIN_SECONDS)
        if not self._waiter.messages and not self._waiter.to_look_up:
            self._waiter.to_look_up.extend(pending)
        with self._lock:  # watches may have been added while this thread slept
            pending = {self._backend.task_key(task_id): task_id for task_id in self._callbacks}
        for record in self._backend.arrivals(self._waiter, pending):
            if record.ready:
                with self._lock:
                    callbacks = self._forget(record.task_id)
                for callback in callbacks:
                    try:
                        callback(record)
                    except Exception:
                        logger.exception("a callback of the result of task %s failed", record.task_id)

    def close(self) -> None:
        """Drop all callbacks."""
        with self._lock:
            for task_id in list(self._callbacks):
                self._forget(task_id)


def _key_prefix(prefix: str | None) -> str:
    """The prefix of all keys; `_` is appended unless it ends in a separator (W16-04)."""
    if not prefix:
        return ""
    if not isinstance(prefix, str):
        raise ImproperlyConfigured(f"global_keyprefix must be text, not {prefix!r}")
    return prefix if prefix[-1] in ":_-." else f"{prefix}_"


def _policy(options: Mapping[str, Any] | None) -> RetryPolicy:
    """From `retry_policy` of the transport options; default 20 retries, the first at once, then each second."""
    given = dict(options or {})
    return RetryPolicy(
        max_retries=given.get("max_retries", 20),
        start=given.get("interval_start", 0),
        step=given.get("interval_step", 1),
        longest=given.get("interval_max", 1),
    )
