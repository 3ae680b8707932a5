"""The default scheduler: remembers in a file when each entry was run last."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, MutableMapping
from typing import Any, Protocol

from qbeat.entry import ScheduleEntry
from qbeat.leader import FileLeader, Leader
from qbeat.schedulers.base import Scheduler
from qbeat.schedulers.state_file import SavedRun, StateFile

logger = logging.getLogger(__name__)


class RunStore(Protocol):
    """Where runs are remembered: `StateFile` is one."""

    def runs(self) -> dict[str, SavedRun]:
        """All runs, by name of the entry."""

    def save(self, name: str, run: SavedRun) -> None:
        """Write one run."""

    def replace(self, runs: Iterable[tuple[str, SavedRun]]) -> None:
        """Make `runs` all there is."""

    def fact(self, name: str) -> str | None:
        """A fact about the schedule."""

    def set_fact(self, name: str, value: str) -> None:
        """Remember a fact about the schedule."""

    def checkpoint(self) -> None:
        """Make sure that what was written lasts."""

    def close(self) -> None:
        """Let go of it."""


class PersistentScheduler(Scheduler):
    """Entries come from the settings, their last runs from a file.

    Every run is written when it was sent. When the file cannot be written, beat goes on, and writes all of it
    as soon as it can.

    Args:
        schedule_filename: The file; the setting `beat_schedule_filename` by default.
        app, schedule, max_interval, lazy, sync_every_tasks: As `Scheduler`.

    Raises:
        ImproperlyConfigured: The file cannot be written where it is.
    """

    def __init__(
        self,
        app: Any,
        schedule: MutableMapping[str, ScheduleEntry] | None = None,
        max_interval: float | None = None,
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        schedule_filename: str | None = None,
        **options: Any,
    ) -> None:
        self.schedule_filename = str(schedule_filename or app.conf.beat_schedule_filename)
        self._store: RunStore | None = None
        self._is_behind = False
        self.write_errors: tuple[type[Exception], ...] = (sqlite3.DatabaseError,)
        super().__init__(app, schedule, max_interval, lazy, sync_every_tasks, **options)

    @classmethod
    def leader(cls, app: Any, schedule_filename: str | None = None) -> Leader:
        """Of the beats that share a file, one leads and the others stand by."""
        return FileLeader(f"{schedule_filename or app.conf.beat_schedule_filename}.lock")

    def open_store(self) -> RunStore:
        """Where the runs are."""
        return StateFile(self.schedule_filename)

    def setup_schedule(self) -> None:
        """Fill the schedule from the settings, then the last runs from the file."""
        self._store = store = self.open_store()
        super().setup_schedule()
        if self._zone_is_the_same(store):
            for name, run in store.runs().items():
                entry = self.schedule.get(name)
                if entry is not None:
                    entry.last_run_at, entry.total_run_count = run
        self._write_all()

    def _zone_is_the_same(self, store: RunStore) -> bool:
        """Whether the zone is that of the last start; otherwise old runs say nothing about the new times."""
        facts = {"timezone": str(self.app.timezone), "enable_utc": str(bool(self.app.conf.enable_utc))}
        same = True
        for name, value in facts.items():
            before = store.fact(name)
            if before is not None and before != value:
                logger.warning(
                    "%s changed from %s to %s: the schedule is reset, entries count from now",
                    name,
                    before,
                    value,
                )
                same = False
            store.set_fact(name, value)
        return same

    def reserve(self, entry: ScheduleEntry) -> ScheduleEntry:
        """Move `entry` on to its next run, and write that."""
        new = super().reserve(entry)
        if self._store is not None:
            try:
                self._store.save(new.name or "", SavedRun(new.last_run_at, new.total_run_count))
            except self.write_errors as exc:
                self._cannot_write(exc)
        return new

    def sync(self) -> None:
        """Bring the file up to date, and onto the disk."""
        if self._store is None:
            return
        try:
            if self._is_behind:
                self._write_all()
                logger.info("The schedule file %s is written again", self.schedule_filename)
                self._is_behind = False
            self._store.checkpoint()
        except self.write_errors as exc:
            self._cannot_write(exc)

    def _write_all(self) -> None:
        if self._store is not None:
            self._store.replace(
                (name, SavedRun(entry.last_run_at, entry.total_run_count))
                for name, entry in self.schedule.items()
            )

    def _cannot_write(self, exc: Exception) -> None:
        if not self._is_behind:
            logger.error(
                "Cannot write the schedule file %s (%s): going on without, and trying again at the next sync",
                self.schedule_filename,
                exc,
            )
        self._is_behind = True

    def close(self) -> None:
        """Bring the file up to date and let go of it."""
        super().close()
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def info(self) -> str:
        """A line about the scheduler for the banner."""
        return f"    . db -> {self.schedule_filename}"
