"""The scheduler: entries in memory, sent when due.

Life of a run: the entry's time comes; its message is sent; only then does the entry move on to its next time.
When the broker is away, the entry stays due and is tried again, first after a second, then less and less
often; all tries of one run carry one task id. When it comes back, an entry that missed several runs is sent
once. An entry that cannot be sent for a reason of its own (arguments that do not encode) is logged and moves
on.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from typing import Any

import qcore.errors as errors
from qbeat.due_queue import DueQueue
from qbeat.entries import from_config, make_entry
from qbeat.entry import ScheduleEntry
from qbeat.entry_dict import EntryDict
from qbeat.errors import BrokerAwayError, SchedulingError
from qbeat.leader import Leader
from qbeat.schedules import crontab
from qcore.times import make_aware

logger = logging.getLogger(__name__)

DEFAULT_MAX_INTERVAL_SECONDS = 300.0
DEFAULT_SYNC_SECONDS = 180.0
ENTRIES_PER_TICK = 1000
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
SHORTEST_WAIT_SECONDS = 0.001
CLOCK_STEP_SECONDS = 5.0
# A last run so far in the future was written by a clock that was wrong; waiting for it would stop the entry.
FUTURE_TOLERANCE = timedelta(hours=1)


class Scheduler:
    """Keeps its entries in memory; base of schedulers that keep them elsewhere.

    Args:
        app: The app whose tasks are sent.
        schedule: Mapping to keep the entries in.
        max_interval: Longest sleep in seconds; else the setting `beat_max_loop_interval`, else five minutes.
        lazy: Leave the schedule empty, for looking at the scheduler only.
        sync_every_tasks: Sync after so many sent tasks; else the setting `beat_sync_every`; 0: by time only.
        claim: Says, before each send, whether this beat still leads.

    Raises:
        ImproperlyConfigured: An entry of `beat_schedule` makes no sense.
    """

    entry_class: type[ScheduleEntry] = ScheduleEntry
    max_interval: float = DEFAULT_MAX_INTERVAL_SECONDS
    sync_every: float = DEFAULT_SYNC_SECONDS

    def __init__(
        self,
        app: Any,
        schedule: MutableMapping[str, ScheduleEntry] | None = None,
        max_interval: float | None = None,
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        claim: Leader | None = None,
        **options: Any,
    ) -> None:
        self.app = app
        self.claim = claim
        self.data: MutableMapping[str, ScheduleEntry] = EntryDict() if schedule is None else schedule
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        self.sync_every_tasks = app.conf.beat_sync_every if sync_every_tasks is None else sync_every_tasks
        self._queue: DueQueue | None = None
        self._known: dict[str, ScheduleEntry] | int = {}
        self._attempt_ids: dict[str, str] = {}
        self._outages = 0
        self._retry_at = 0.0
        self._last_sync: float | None = None
        self._tasks_since_sync = 0
        self._clock_offset: float | None = None
        if not lazy:
            self.setup_schedule()

    # -- the entries

    @property
    def schedule(self) -> MutableMapping[str, ScheduleEntry]:
        """Entry name -> entry. Entries may be put in, replaced and taken out at any time."""
        return self.data

    def setup_schedule(self) -> None:
        """Fill the schedule from the settings."""
        self.merge_inplace(self.app.conf.beat_schedule)
        self.install_default_entries(self.schedule)

    def merge_inplace(self, config: Mapping[str, Any] | None) -> None:
        """Make the schedule what `config` says; entries that stay keep their last run and count."""
        wanted = from_config(config, self.app, self.entry_class)
        for name in [name for name in self.schedule if name not in wanted]:
            del self.schedule[name]
        for name, entry in wanted.items():
            known = self.schedule.get(name)
            if known is None:
                self.schedule[name] = entry
            elif known != entry:
                known.update(entry)
                self.schedule[name] = known
                self._queue = None

    def update_from_dict(self, config: Mapping[str, Any]) -> None:
        """Add or replace entries."""
        for name, fields in config.items():
            self.schedule[name] = make_entry(name, fields, self.app, self.entry_class)

    def add(self, **fields: Any) -> ScheduleEntry:
        """Add an entry; the fields are those of `ScheduleEntry`."""
        entry = self.entry_class(app=self.app, **fields)
        self.schedule[entry.name or repr(entry)] = entry
        return entry

    def install_default_entries(self, data: Mapping[str, ScheduleEntry]) -> None:
        """Add the nightly clean-up for result stores that do not forget old results by themselves."""
        if (
            self.app.conf.result_expires
            and "celery.backend_cleanup" not in data
            and not getattr(self.app.backend, "supports_autoexpire", True)
        ):
            self.add(
                name="celery.backend_cleanup",
                task="celery.backend_cleanup",
                schedule=crontab("0", "4", "*", app=self.app),
                options={"expires": 12 * 3600},
            )

    # -- the loop

    def tick(self) -> float:
        """Send what is due.

        Returns:
            Seconds until the next call is of use, at most `max_interval`.
        """
        self._watch_clock()
        if self._queue is None or self._is_changed():
            self.populate_heap()
        wait = self._retry_at - time.monotonic()
        if wait > 0:
            return min(wait, self.max_interval)
        queue = self._queue
        for _ in range(ENTRIES_PER_TICK):
            if queue is not self._queue or queue is None:
                return 0.0
            first = queue.first
            if first is None:
                return self.max_interval
            ahead = first.when - self._timestamp()
            if ahead > 0:
                return min(ahead, self.max_interval)
            if self.claim is not None and not self.claim.holds():
                return 0.0
            queue.pop()
            try:
                self._visit(queue, first.name)
            except BrokerAwayError as exc:
                queue.push(first.when, first.name)
                return min(self._broker_is_away(exc), self.max_interval)
        return 0.0

    def _visit(self, queue: DueQueue, name: str) -> None:
        entry = self.schedule.get(name)
        if entry is None:
            return
        started = self._timestamp()
        is_due, delay = self._state(entry)
        if is_due:
            self.apply_entry(entry)
            new = self.reserve(entry)
            if isinstance(self._known, dict):
                self._known[name] = new
        else:
            delay = max(delay, SHORTEST_WAIT_SECONDS)
        queue.push(started + delay, name)

    def _state(self, entry: ScheduleEntry) -> tuple[bool, float]:
        try:
            is_due, delay = self.is_due(entry)
        except Exception:
            # A schedule may be foreign code, and one that fails must not stop the others.
            logger.exception(
                "Cannot tell when %r is due: trying again in %s seconds", entry.name, self.max_interval
            )
            return False, self.max_interval
        return bool(is_due), delay if isinstance(delay, (int, float)) else self.max_interval

    def is_due(self, entry: ScheduleEntry) -> tuple[bool, float]:
        """Whether `entry` is due, and seconds until it is next."""
        return entry.is_due()

    def populate_heap(self) -> None:
        """Put the times of all entries in order anew."""
        now = self._timestamp()
        self._forget_future_runs()
        times = []
        for name, entry in self.schedule.items():
            is_due, delay = self._state(entry)
            times.append((now if is_due else now + delay, name))
        self._queue = DueQueue(times)
        self._known = self._snapshot()

    def _snapshot(self) -> dict[str, ScheduleEntry] | int:
        """What tells later whether entries were changed: a number, or all of them if there is none."""
        return self.schedule.version if isinstance(self.schedule, EntryDict) else dict(self.schedule)

    def _is_changed(self) -> bool:
        schedule, known = self.schedule, self._known
        if not isinstance(known, dict):
            return self._snapshot() != known
        if len(schedule) != len(known):
            return True
        return any(known.get(name) is not entry for name, entry in schedule.items())

    def _timestamp(self) -> float:
        now: float = self.app.now().timestamp()
        return now

    def _watch_clock(self) -> None:
        """Put the times in order anew when the clock of the system was set."""
        offset = self._timestamp() - time.monotonic()
        if self._clock_offset is not None:
            step = offset - self._clock_offset
            if abs(step) > CLOCK_STEP_SECONDS:
                logger.warning("The clock was set by %+.1f seconds: computing all times anew", step)
                self._queue = None
        self._clock_offset = offset

    def _forget_future_runs(self) -> None:
        for entry in self.schedule.values():
            now = entry.default_now()
            if make_aware(entry.last_run_at) > make_aware(now) + FUTURE_TOLERANCE:
                logger.warning(
                    "Entry %r was last run at %s, which is yet to come (was the clock wrong?): it counts "
                    "from now",
                    entry.name,
                    entry.last_run_at.isoformat(),
                )
                entry.last_run_at = now

    # -- sending

    def reserve(self, entry: ScheduleEntry) -> ScheduleEntry:
        """Move `entry` on to its next run."""
        new = next(entry)
        if isinstance(self.schedule, EntryDict):
            self.schedule.move_on(entry.name or "", new)
        else:
            self.schedule[entry.name or ""] = new
        return new

    def apply_entry(self, entry: ScheduleEntry) -> None:
        """Send a due entry; what is wrong with the entry itself is logged.

        Raises:
            BrokerAwayError: The broker cannot be reached.
        """
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, advance=False)
        except BrokerAwayError:
            raise
        except SchedulingError as exc:
            logger.error("%s; it is due again at its next time", exc, exc_info=exc.__cause__)
        else:
            logger.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))
        self._attempt_ids.pop(entry.name or "", None)
        if self._outages:
            logger.info("The broker is back: periodic tasks are sent again")
            self._outages, self._retry_at = 0, 0.0

    def apply_async(self, entry: ScheduleEntry, advance: bool = True, **options: Any) -> Any:
        """Send an entry now, due or not; with `advance`, it then counts as run.

        Raises:
            BrokerAwayError: The broker cannot be reached.
            SchedulingError: It cannot be sent.
        """
        try:
            result = self._send(entry, options)
        except (errors.OperationalError, OSError) as exc:
            raise BrokerAwayError(f"cannot send the periodic task {entry.name}: {exc}") from exc
        except Exception as exc:
            # Foreign code: lazy arguments, routers, serializers, signal receivers.
            raise SchedulingError(f"cannot send the periodic task {entry.name}: {exc!r}") from exc
        if advance:
            self.reserve(entry)
        self._tasks_since_sync += 1
        return result

    def _send(self, entry: ScheduleEntry, more: dict[str, Any]) -> Any:
        options = {**entry.options, **more}
        options["headers"] = {**(options.get("headers") or {}), "celery_beat_task": True}
        # Every try of a run has one id: should a try have got through after all, it is the same task.
        options.setdefault("task_id", self._attempt_ids.setdefault(entry.name or "", str(uuid.uuid4())))
        args, kwargs = entry.evaluated_args(), entry.evaluated_kwargs()
        task = self.app.tasks.get(entry.task)
        if task is not None:
            return task.apply_async(args, kwargs, **options)
        return self.send_task(entry.task or "", args, kwargs, **options)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send a task that is not known here, by its name."""
        result: Any = self.app.send_task(name, args, kwargs, **options)
        return result

    def _broker_is_away(self, exc: BrokerAwayError) -> float:
        wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(self._outages, 10), LONGEST_RETRY_SECONDS)
        self._outages += 1
        self._retry_at = time.monotonic() + wait
        logger.error("%s; nothing is lost, trying again in %s seconds", exc, wait)
        return wait

    # -- keeping

    def should_sync(self) -> bool:
        """Whether the schedule should be written, by time or by the number of tasks sent."""
        if self._last_sync is None or time.monotonic() - self._last_sync > self.sync_every:
            return True
        return bool(self.sync_every_tasks) and self._tasks_since_sync >= self.sync_every_tasks

    def do_sync(self) -> None:
        """`sync`, and count anew."""
        try:
            logger.debug("beat: Synchronizing schedule...")
            self.sync()
        finally:
            self._last_sync = time.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """Write the schedule; nothing to do for one in memory."""

    def close(self) -> None:
        """Write the schedule and let go of files."""
        self.sync()

    @property
    def info(self) -> str:
        """A line about the scheduler for the banner."""
        return ""
