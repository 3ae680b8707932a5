"""Real apps on the in-memory broker, with a clock that can be set and a broker that can go away."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from qcore import App
from qcore.errors import OperationalError

START = datetime(2024, 1, 1, 12, 0, tzinfo=UTC)


class BeatApp(App):
    """An app on the in-memory broker.

    `clock_at` is the time it tells (None: the real one); while `away` is set, sending fails as it does when
    the broker cannot be reached; `sent` lists what got through.
    """

    def on_init(self) -> None:
        self.clock_at: datetime | None = None
        self.away = False
        self.tries = 0
        self.sent: list[tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]] = []

    def now(self) -> datetime:
        return super().now() if self.clock_at is None else self.clock_at.astimezone(self.timezone)

    def advance(self, seconds: float) -> None:
        assert self.clock_at is not None
        self.clock_at += timedelta(seconds=seconds)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        self.tries += 1
        if self.away:
            raise OperationalError("the broker memory:// is away")
        result = super().send_task(name, args, kwargs, **options)
        self.sent.append((name, tuple(args or ()), dict(kwargs or {}), options))
        return result

    def names_sent(self) -> list[str]:
        names = [name for name, *_ in self.sent]
        self.sent.clear()
        return names


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[..., BeatApp]]:
    apps: list[BeatApp] = []

    def make(clock_at: datetime | None = START, **settings: Any) -> BeatApp:
        app = BeatApp(
            f"beat-{uuid.uuid4()}",
            broker="memory://",
            set_as_current=False,
            task_default_queue=f"beat-{uuid.uuid4()}",
            beat_schedule_filename=str(tmp_path / "schedule"),
            **settings,
        )
        app.clock_at = clock_at
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def app(make_app: Callable[..., BeatApp]) -> BeatApp:
    return make_app()
