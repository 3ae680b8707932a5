"""What the start-up screen shows, as data."""

from __future__ import annotations

from attrs import frozen


@frozen
class Banner:
    """What the start-up screen shows."""

    hostname: str
    version: str
    app: str
    broker: str
    results: str
    concurrency: str
    pool: str
    events: bool
    queues: str
    notice: str | None
    """One line about the embedded broker, when nothing was configured."""
    tasks: tuple[str, ...]
