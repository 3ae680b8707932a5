"""Results in this process: for tests, eager calls and the in-memory broker."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field

from qcore import states
from qcore.errors import ChordError, TimeoutError

from .base import BaseBackend
from .chords import arranged, fail_body, send_body, value_of_part
from .contract import GroupLike, OnRecord
from .record import RequestLike, ResultRecord


@define
class _Stored:
    payload: bytes
    state: str
    expires: float | None
    """Monotonic seconds."""


@define
class _Chord:
    body: Mapping[str, Any]
    size: int
    order: list[str]
    tuple: Any
    nested: bool
    parts: dict[tuple[str, Any], list[Any]] = field(factory=dict)


@define
class _Waiter:
    """What one `wait` listens for."""

    ids: set[str]
    arrived: deque[str] = field(factory=deque)


class MemoryBackend(BaseBackend):
    """A store in the memory of this process; records take the same way through the serializer as elsewhere."""

    supports_messages = True
    persistent = False

    def _start_process(self) -> None:
        super()._start_process()
        self._changed = threading.Condition()
        self._records: dict[str, _Stored] = {}
        self._groups: dict[str, bytes] = {}
        self._chords: dict[str, _Chord] = {}
        self._waiters: list[_Waiter] = []
        self._watched: dict[str, list[OnRecord]] = {}

    def _check_process(self) -> None:
        """After a fork the child has a copy of its own; a lock that was held then is of no use in it."""

    # --- writing -------------------------------------------------------------------------------

    def store(self, record: ResultRecord) -> None:
        payload = self.codec.pack(self.encode_record(record))
        failed = record.status in states.PROPAGATE_STATES
        seconds = self.failure_expires_seconds if failed else self.expires_seconds
        with self._changed:
            old = self._records.get(record.task_id)
            if old is not None and old.state == states.SUCCESS:
                return
            expires = None if seconds is None else time.monotonic() + seconds
            self._records[record.task_id] = _Stored(payload, record.status, expires)
            for waiter in self._waiters:
                if record.task_id in waiter.ids:
                    waiter.arrived.append(record.task_id)
            self._changed.notify_all()
            callbacks = self._watched.pop(record.task_id, ()) if record.ready else ()
        for callback in callbacks:
            callback(self.get(record.task_id))

    def _write(self, writes: list[Any]) -> None:
        """Nothing is buffered."""

    # --- reading -------------------------------------------------------------------------------

    def _read(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        with self._changed:
            stored = {task_id: self._records[task_id] for task_id in task_ids if task_id in self._records}
        now = time.monotonic()
        return {
            task_id: self.decode_record(task_id, entry.payload)
            for task_id, entry in stored.items()
            if entry.expires is None or entry.expires > now
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
        end = None if timeout is None else time.monotonic() + timeout
        waiter = _Waiter(set(task_ids))
        with self._changed:
            self._waiters.append(waiter)
            waiter.arrived.extend(task_id for task_id in task_ids if task_id in self._records)
        try:
            while waiter.ids:
                for record in self._arrived(waiter):
                    if on_message is not None:
                        on_message(record)
                    if record.ready:
                        waiter.ids.discard(record.task_id)
                        yield record
                if waiter.ids:
                    self._wait_for_change(waiter, end, timeout, on_interval)
        finally:
            with self._changed:
                self._waiters.remove(waiter)

    def _arrived(self, waiter: _Waiter) -> Iterator[ResultRecord]:
        while waiter.arrived:
            task_id = waiter.arrived.popleft()
            if task_id in waiter.ids:
                yield self.get(task_id)

    def _wait_for_change(
        self,
        waiter: _Waiter,
        end: float | None,
        timeout: float | None,
        on_interval: Callable[[], Any] | None,
    ) -> None:
        if on_interval is not None:
            on_interval()
        pause = None if on_interval is None else 0.1
        if end is not None:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{len(waiter.ids)} of the awaited tasks were not ready in {timeout} s")
            pause = left if pause is None else min(pause, left)
        with self._changed:
            if not waiter.arrived:
                self._changed.wait(pause)

    def watch(self, task_id: str, callback: OnRecord) -> Callable[[], None]:
        with self._changed:
            stored = self._records.get(task_id)
            ready = stored is not None and stored.state in states.READY_STATES
            if not ready:
                self._watched.setdefault(task_id, []).append(callback)
        if ready:
            callback(self.get(task_id))

        def stop() -> None:
            with self._changed:
                callbacks = self._watched.get(task_id, [])
                if callback in callbacks:
                    callbacks.remove(callback)

        return stop

    def forget(self, task_id: str) -> None:
        with self._changed:
            self._records.pop(task_id, None)
        self._cache.pop(task_id, None)

    # --- groups and chords ---------------------------------------------------------------------

    def save_group(self, group: GroupLike) -> None:
        self._groups[group.id] = self.encode_group(group)

    def restore_group(self, group_id: str) -> Any | None:
        payload = self._groups.get(group_id)
        return None if payload is None else self.decode_group(payload)

    def delete_group(self, group_id: str) -> None:
        self._groups.pop(group_id, None)

    def start_chord(
        self, group_id: str, body: Mapping[str, Any], size: int, header: GroupLike, nested: bool
    ) -> None:
        form = header.as_tuple()
        order = [] if nested else [member[0][0] for member in form[1]]
        with self._changed:
            self._chords[group_id] = _Chord(body, size, order, form, nested)

    def add_to_chord(self, group_id: str, result: Any = None) -> None:
        with self._changed:
            chord = self._chords.get(group_id)
            if chord is not None:
                chord.size += 1

    def chord_part(self, request: RequestLike, state: str, result: Any) -> None:
        group_id = request.group
        if not group_id or not request.chord:
            return
        index = request.group_index
        part = [1, request.id, state, self.codec.value_to_wire(result)]
        with self._changed:
            chord = self._chords.get(group_id)
            if chord is None:
                return
            chord.parts.setdefault((request.id, index), part)
            failed = state in states.PROPAGATE_STATES
            if not failed and len(chord.parts) < chord.size:
                return
            del self._chords[group_id]
        self._finish(chord, part if failed else None)

    def _finish(self, chord: _Chord, failed: list[Any] | None) -> None:
        try:
            if failed is not None:
                value_of_part(failed[1], failed[2], failed[3])
            values = self._values(chord)
        except ChordError as error:
            fail_body(self.app, chord.body, error)
        else:
            send_body(self.app, chord.body, values)

    def _values(self, chord: _Chord) -> list[Any]:
        parts = [chord.parts[key] for key in sorted(chord.parts, key=lambda key: _position(key[1]))]
        if chord.nested:
            return arranged(chord.tuple, parts)
        return [value_of_part(part[1], part[2], part[3]) for part in parts]

    def cleanup(self) -> None:
        now = time.monotonic()
        with self._changed:
            for task_id, entry in list(self._records.items()):
                if entry.expires is not None and entry.expires <= now:
                    del self._records[task_id]


def _position(index: int | None) -> float:
    return float("inf") if index is None else index
