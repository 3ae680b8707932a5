"""The dumper: writes each event as it comes, one line of text or of JSON."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, Protocol

from qevents.state.bounded import BoundedDict

TASK_NAMES_KEPT = 4095

_WORDS = {
    "worker-online": "started",
    "worker-offline": "shutdown",
    "worker-heartbeat": "heartbeat",
}


class Output(Protocol):
    """Where lines go: an open text file."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class Dumper:
    """Writes events as text: `hostname [time] what: task fields`.

    A task's name and arguments come with its first events; the dumper remembers them for the later ones.
    """

    def __init__(self, out: Output | None = None) -> None:
        self.out: Output = out if out is not None else sys.stdout
        self._tasks: BoundedDict[str, str] = BoundedDict(TASK_NAMES_KEPT)

    def say(self, text: str) -> None:
        """Write a line at once, so that it can be piped."""
        self.out.write(text + "\n")
        self.out.flush()

    def on_event(self, event: dict[str, Any]) -> None:
        """Write an event."""
        self.say(self.format(event))

    def format(self, event: dict[str, Any]) -> str:
        """The line for an event."""
        fields = dict(event)
        type_ = str(fields.pop("type")).lower()
        hostname = fields.pop("hostname", None)
        timestamp = fields.pop("timestamp", None)
        when = datetime.fromtimestamp(timestamp, UTC) if timestamp is not None else "-"
        task = self._task(type_, fields) if type_.startswith("task-") else ""
        details = ", ".join(f"{name}={fields[name]}" for name in sorted(fields))
        colon = ":" if task or details else ""
        words = _WORDS.get(type_) or type_.replace("-", " ")
        return " ".join(filter(None, [f"{hostname} [{when}] {words}{colon}", task, details]))

    def _task(self, type_: str, fields: dict[str, Any]) -> str:
        uuid = fields.pop("uuid", None)
        if type_ in ("task-sent", "task-received"):
            name, args, kwargs = (fields.pop(key, None) for key in ("name", "args", "kwargs"))
            self._tasks[uuid] = f"{name}({uuid}) args={args} kwargs={kwargs}"
        return self._tasks.get(uuid, f"({uuid})")


class JsonDumper(Dumper):
    """Writes events as JSON lines; what JSON has no form for is written as text."""

    def format(self, event: dict[str, Any]) -> str:
        """The line for an event."""
        return json.dumps(event, default=str)


def evdump(
    app: Any,
    out: Output | None = None,
    as_json: bool = False,
    limit: int | None = None,
    timeout: float | None = None,
) -> None:
    """Write the events of `app`'s cluster to `out` (standard output) until interrupted.

    Args:
        app: The app whose broker is listened to.
        out: An open text file.
        as_json: One JSON object per line, and nothing else.
        limit: Number of messages after which to stop.
        timeout: Seconds without any event after which to stop.

    Raises:
        TimeoutError: Nothing came for `timeout` seconds.
    """
    dumper = JsonDumper(out) if as_json else Dumper(out)
    if not as_json:
        dumper.say("-> evdump: starting capture...")
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": dumper.on_event})
        try:
            receiver.capture(limit=limit, timeout=timeout)
        except KeyboardInterrupt:
            return
