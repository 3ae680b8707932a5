"""What the stores in databases have in common: batches in one transaction, chords counted in two tables.

A chord has a row with its body and header while it is open, and a row per part. Whoever commits the last part
claims the chord, sends the body, and deletes the rows. A claim that is not followed by that (its owner died) is
taken over after a while; header tasks that ran in foreign workers, which write no parts, are found by their
results. Workers and waiting clients look for both from time to time.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from attrs import frozen

from qcore import states
from qcore.backend.base import BaseBackend
from qcore.backend.chords import arranged, fail_body, leaf_ids, send_body, value_of_part
from qcore.backend.contract import GroupLike
from qcore.backend.record import RequestLike, ResultRecord
from qcore.errors import ChordError

from .rows import from_row, naive_utc, to_row

logger = logging.getLogger(__name__)

CLAIM_SECONDS = 30.0
_SWEEP_SECONDS = 1.0
_NO_POSITION = 2**31 - 1


@frozen
class Part:
    """One finished member of a header, as it is written."""

    group_id: str
    task_id: str
    position: int
    state: str
    result: bytes


@frozen
class OpenChord:
    """A chord whose header is not complete."""

    group_id: str
    size: int
    body: bytes
    header: bytes
    claimed: float | None
    """Epoch seconds."""


class Transaction(Protocol):
    """The statements that the stores need; all of one transaction are committed together."""

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write task rows, except over a SUCCESS."""

    def select(self, task_ids: Sequence[str]) -> Iterable[Mapping[str, Any]]:
        """Task rows."""

    def delete_task(self, task_id: str) -> None:
        """Remove a task row."""

    def put_group(self, group_id: str, result: bytes, now: Any) -> None:
        """Write a group row."""

    def get_group(self, group_id: str) -> bytes | None:
        """Content of a group row."""

    def delete_group(self, group_id: str) -> None:
        """Remove a group row."""

    def delete_older(self, before: Any) -> None:
        """Remove task and group rows done before the given time."""

    def open_chord(self, chord: OpenChord) -> None:
        """Write a chord row, and forget parts of an earlier run."""

    def lock_chord(self, group_id: str) -> OpenChord | None:
        """Read a chord row, and keep others from changing it until the transaction ends."""

    def grow_chord(self, group_id: str) -> None:
        """Add one to a chord's size."""

    def claim_chord(self, group_id: str, now: float | None) -> None:
        """Set the time of the claim."""

    def delete_chord(self, group_id: str) -> None:
        """Remove a chord and its parts."""

    def add_parts(self, parts: Sequence[Part]) -> None:
        """Write parts, except those that are there."""

    def count_parts(self, group_id: str) -> int:
        """How many parts there are."""

    def parts(self, group_id: str) -> list[Part]:
        """The parts in order."""

    def open_chords(self, claimed_before: float) -> list[str]:
        """Ids of the chords that are not claimed, or were claimed before that time."""


class RelationalBackend(BaseBackend):
    """Base of the database stores."""

    def _start_process(self) -> None:
        super()._start_process()
        self._next_sweep = 0.0

    @abstractmethod
    def transaction(self, write: bool) -> AbstractContextManager[Transaction]:
        """A transaction; committed at the end of the block, rolled back when it raises."""

    @abstractmethod
    def run(self, operation: Any, what: str, write: bool) -> Any:
        """`operation(transaction)`, again after passing failures.

        Raises:
            BackendStoreError: it stayed impossible to write.
            BackendGetMetaError: it stayed impossible to read.
        """

    # --- writing -------------------------------------------------------------------------------

    def store(self, record: ResultRecord) -> None:
        self._buffer_write(to_row(record, self.codec))

    def chord_part(self, request: RequestLike, state: str, result: Any) -> None:
        if not request.group or not request.chord or not request.id:
            return
        index = request.group_index
        wire = self.codec.encode(self.codec.value_to_wire(result))
        position = _NO_POSITION if index is None else index
        self._buffer_write(Part(request.group, request.id, position, state, wire))

    def _write(self, writes: list[Any]) -> None:
        rows: dict[str, dict[str, Any]] = {}
        for row in writes:
            if isinstance(row, dict):
                earlier = rows.get(row["task_id"])
                if earlier is None or earlier["status"] != states.SUCCESS:
                    rows[row["task_id"]] = row
        parts = [part for part in writes if isinstance(part, Part)]
        ordered = [rows[task_id] for task_id in sorted(rows)]  # the same order everywhere: no deadlocks

        def write(transaction: Transaction) -> list[OpenChord]:
            if ordered:
                transaction.upsert(ordered)
            return self._count(transaction, parts) if parts else []

        for chord in self.run(write, "storing results", write=True):
            self._finish_chord(chord)
        if parts:
            self._sweep_sometimes()

    def _count(self, transaction: Transaction, parts: Sequence[Part]) -> list[OpenChord]:
        """Write the parts of open chords; those chords that are complete or failed by them, claimed."""
        by_group: dict[str, list[Part]] = {}
        for part in parts:
            by_group.setdefault(part.group_id, []).append(part)
        complete = []
        for group_id in sorted(by_group):
            chord = transaction.lock_chord(group_id)
            if chord is None:
                continue
            transaction.add_parts(by_group[group_id])
            failed = any(part.state in states.PROPAGATE_STATES for part in by_group[group_id])
            if (failed or transaction.count_parts(group_id) >= chord.size) and _is_free(chord):
                transaction.claim_chord(group_id, time.time())
                complete.append(chord)
        return complete

    # --- the end of a chord ----------------------------------------------------------------------

    def _finish_chord(self, chord: OpenChord) -> None:
        body = self.codec.decode(chord.body)
        parts = self.run(lambda t: t.parts(chord.group_id), "reading the parts of a chord", write=False)
        try:
            values = self._values(chord, parts)
        except ChordError as error:
            fail_body(self.app, body, error)
        except Exception as exc:  # the parts cannot be read: the body must not stay pending
            logger.exception("the parts of chord %s cannot be joined; its body fails", chord.group_id)
            fail_body(self.app, body, ChordError(f"Join error: {exc!r}"))
        else:
            send_body(self.app, body, values)
        self.run(lambda t: t.delete_chord(chord.group_id), "closing a chord", write=True)

    def _values(self, chord: OpenChord, parts: Sequence[Part]) -> list[Any]:
        decoded = [[1, part.task_id, part.state, self.codec.decode(part.result)] for part in parts]
        for part in decoded:
            value_of_part(part[1], part[2], part[3])
        header = self.codec.decode(chord.header)
        found = {part[1] for part in decoded}
        wanted = leaf_ids(header)
        if found.issuperset(wanted):
            if len(wanted) == len(parts):
                return arranged(header, decoded)
            return _with_added(header, decoded, wanted)
        return [value_of_part(part[1], part[2], part[3]) for part in decoded]

    def sweep(self) -> None:
        """Finish chords whose last part was written by a foreign worker, or whose finisher died."""
        open_ids = self.run(
            lambda t: t.open_chords(time.time() - CLAIM_SECONDS), "looking for open chords", write=False
        )
        for group_id in open_ids:
            chord = self.run(lambda t, g=group_id: self._take_over(t, g), "looking after a chord", write=True)
            if chord is not None:
                self._finish_chord(chord)

    def _take_over(self, transaction: Transaction, group_id: str) -> OpenChord | None:
        chord = transaction.lock_chord(group_id)
        if chord is None or not _is_free(chord):
            return None
        known = transaction.parts(group_id)
        here = {part.task_id for part in known}
        missing = [task_id for task_id in leaf_ids(self.codec.decode(chord.header)) if task_id not in here]
        if missing:
            found = [
                from_row(row, self.codec)
                for start in range(0, len(missing), 500)
                for row in transaction.select(missing[start : start + 500])
            ]
            order = {task_id: place for place, task_id in enumerate(missing)}
            new = [
                Part(
                    group_id,
                    record.task_id,
                    order[record.task_id],
                    record.status,
                    self.codec.encode(self.codec.value_to_wire(record.result)),
                )
                for record in found
                if record.ready
            ]
            transaction.add_parts(new)
            known = [*known, *new]
        failed = any(part.state in states.PROPAGATE_STATES for part in known)
        if not failed and len(known) < chord.size:
            return None
        transaction.claim_chord(group_id, time.time())
        return chord

    def _sweep_sometimes(self) -> None:
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_SECONDS
            self.sweep()

    def _while_waiting(self, waited_seconds: float) -> None:
        if waited_seconds > _SWEEP_SECONDS:
            self._sweep_sometimes()

    def start_chord(
        self, group_id: str, body: Mapping[str, Any], size: int, header: GroupLike, nested: bool
    ) -> None:
        chord = OpenChord(group_id, size, self.codec.encode(body), self.codec.encode(header.as_tuple()), None)
        self.run(lambda t: t.open_chord(chord), "starting a chord", write=True)

    def add_to_chord(self, group_id: str, result: Any = None) -> None:
        self.run(lambda t: t.grow_chord(group_id), "growing a chord", write=True)

    # --- reading and the rest --------------------------------------------------------------------

    def _read(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        rows = self.run(lambda t: list(t.select(task_ids)), "reading results", write=False)
        return {row["task_id"]: from_row(row, self.codec) for row in rows}

    def forget(self, task_id: str) -> None:
        self._cache.pop(task_id, None)
        self.run(lambda t: t.delete_task(task_id), "forgetting a result", write=True)

    def save_group(self, group: GroupLike) -> None:
        payload = self.codec.encode(group.as_tuple())
        now = naive_utc(time.time())
        self.run(lambda t: t.put_group(group.id, payload, now), "saving a group", write=True)

    def restore_group(self, group_id: str) -> Any | None:
        payload = self.run(lambda t: t.get_group(group_id), "reading a group", write=False)
        return None if payload is None else self.codec.decode(bytes(payload))

    def delete_group(self, group_id: str) -> None:
        self.run(lambda t: t.delete_group(group_id), "deleting a group", write=True)

    def cleanup(self) -> None:
        if self.expires_seconds is not None:
            before = naive_utc(time.time() - self.expires_seconds)
            self.run(lambda t: t.delete_older(before), "removing expired results", write=True)


def _is_free(chord: OpenChord) -> bool:
    return chord.claimed is None or chord.claimed < time.time() - CLAIM_SECONDS


def _with_added(header: Any, parts: Sequence[Sequence[Any]], wanted: Sequence[str]) -> list[Any]:
    """The header's values, and behind them those of tasks that were added to the chord while it ran."""
    added = [part for part in parts if part[1] not in set(wanted)]
    return [*arranged(header, parts), *(value_of_part(part[1], part[2], part[3]) for part in added)]
