"""One periodic task: what to send, when, and when it was sent last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from qbeat.schedules import BaseSchedule, ScheduleState, maybe_schedule
from qcore.times import utc_now

EDITABLE_FIELDS = ("task", "schedule", "args", "kwargs", "options")


class BeatLazyFunc:
    """An argument that is computed anew each time the task is sent: calls `function` with the rest."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def __call__(self) -> Any:
        return self._function(*self._args, **self._kwargs)

    delay = __call__


class ScheduleEntry:
    """An entry of the schedule.

    Two entries are equal when their editable fields are: task, schedule, args, kwargs, options.

    Args:
        name: Unique name of the entry.
        task: Name of the task to send.
        last_run_at: When it was sent last; now by default, so that a new entry waits for its first time.
        total_run_count: How often it was sent.
        schedule: Seconds, timedelta or schedule.
        args, kwargs: Arguments of the task; `BeatLazyFunc` among them are computed when it is sent.
        options: Any options of `apply_async`.
        relative: For seconds and timedelta: by the clock, see `qbeat.schedules.schedule`.
        app: The app that sends it.

    Raises:
        ValueError: The schedule makes no sense.
    """

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: datetime | None = None,
        total_run_count: int | None = None,
        schedule: float | timedelta | BaseSchedule | None = None,
        args: Sequence[Any] | None = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        relative: bool = False,
        app: Any = None,
    ) -> None:
        self.app = app
        self.name = name
        self.task = task
        self.args = tuple(args or ())
        self.kwargs = dict(kwargs or {})
        self.options = dict(options or {})
        self.schedule = maybe_schedule(schedule, relative, app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime:
        """The current time as the schedule sees it, aware."""
        return self.schedule.now() if isinstance(self.schedule, BaseSchedule) else utc_now()

    def is_due(self) -> ScheduleState | tuple[bool, float]:
        """Whether a run is due, and seconds until the next one."""
        return self.schedule.is_due(self.last_run_at)

    def next(self, last_run_at: datetime | None = None) -> Self:
        """This entry after a run: count and time of the last run go on.

        An interval goes on from the moment that was due, not from the moment at which it was sent, so that
        small delays never add up.
        """
        if last_run_at is None:
            now = self.default_now()
            advance = getattr(self.schedule, "advance", None)
            last_run_at = advance(self.last_run_at, now) if advance is not None else now
        fields = dict(self)
        fields.update(last_run_at=last_run_at, total_run_count=self.total_run_count + 1)
        return self.__class__(**fields)

    __next__ = next

    def update(self, other: ScheduleEntry) -> None:
        """Take over the editable fields of another entry."""
        for field in EDITABLE_FIELDS:
            setattr(self, field, getattr(other, field))

    def evaluated_args(self) -> tuple[Any, ...]:
        """The positional arguments to send now."""
        return tuple(_evaluate(value) for value in self.args)

    def evaluated_kwargs(self) -> dict[str, Any]:
        """The keyword arguments to send now."""
        return {name: _evaluate(value) for name, value in self.kwargs.items()}

    def editable_fields_equal(self, other: ScheduleEntry) -> bool:
        """Whether both would send the same at the same times."""
        return all(getattr(self, field) == getattr(other, field) for field in EDITABLE_FIELDS)

    def __eq__(self, other: object) -> bool:
        return self.editable_fields_equal(other) if isinstance(other, ScheduleEntry) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # its fields change

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "app": None}  # an app does not travel to another process

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"<{type(self).__name__}: {self.name} {self.task}({', '.join(arguments)}) {self.schedule}>"


def _evaluate(value: Any) -> Any:
    return value() if isinstance(value, BeatLazyFunc) else value
