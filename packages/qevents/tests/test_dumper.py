"""What the dumper writes."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from typing import Any

import pytest
from kombu import Connection

from qcore.events import EventDispatcher
from qevents import Dumper, JsonDumper, evdump

WHEN = 1_700_000_000.0
RECEIVED = {
    "type": "task-received",
    "hostname": "q@h",
    "timestamp": WHEN,
    "uuid": "1",
    "name": "add",
    "args": "(2,)",
    "kwargs": "{}",
    "retries": 0,
}


def lines(*events: dict[str, Any], dumper: type[Dumper] = Dumper) -> list[str]:
    out = io.StringIO()
    writer = dumper(out)
    for event in events:
        writer.on_event(event)
    return out.getvalue().splitlines()


def test_task_events_tell_name_and_arguments_throughout() -> None:
    assert lines(
        RECEIVED,
        {"type": "task-succeeded", "hostname": "q@h", "timestamp": WHEN, "uuid": "1", "runtime": 0.5},
    ) == [
        "q@h [2023-11-14 22:13:20+00:00] task received: add(1) args=(2,) kwargs={} retries=0",
        "q@h [2023-11-14 22:13:20+00:00] task succeeded: add(1) args=(2,) kwargs={} runtime=0.5",
    ]


def test_a_task_that_was_never_introduced_is_shown_by_its_id() -> None:
    (line,) = lines({"type": "task-started", "hostname": "q@h", "timestamp": WHEN, "uuid": "1"})
    assert line == "q@h [2023-11-14 22:13:20+00:00] task started: (1)"


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        ("worker-online", "started"),
        ("worker-offline", "shutdown"),
        ("worker-heartbeat", "heartbeat"),
        ("custom-my-thing", "custom my thing"),
    ],
)
def test_words_for_types(type_: str, words: str) -> None:
    assert lines({"type": type_, "hostname": "q@h", "timestamp": WHEN}) == [
        f"q@h [2023-11-14 22:13:20+00:00] {words}"
    ]


def test_fields_are_sorted() -> None:
    (line,) = lines({"type": "worker-online", "hostname": "q@h", "timestamp": WHEN, "b": 2, "a": 1})
    assert line.endswith("started: a=1, b=2")


def test_a_bare_event_does_not_stop_the_dump() -> None:
    assert lines({"type": "x"}) == ["None [-] x"]


def test_the_event_is_left_as_it_was() -> None:
    event = dict(RECEIVED)
    lines(event)
    assert event == RECEIVED


def test_json_lines() -> None:
    (line,) = lines(RECEIVED | {"odd": {1}}, dumper=JsonDumper)
    assert json.loads(line) == RECEIVED | {"odd": "{1}"}


@pytest.mark.parametrize("as_json", [False, True])
def test_evdump_writes_what_is_captured(
    app: Any, connection: Connection, exchange: str, as_json: bool
) -> None:
    @contextmanager
    def connection_for_read() -> Any:
        yield connection

    app.connection_for_read = connection_for_read
    app.control.broadcast = lambda command, **options: EventDispatcher(
        connection, "q@h", exchange=exchange
    ).send("worker-online")
    out = io.StringIO()
    evdump(app, out, as_json=as_json, limit=1, timeout=20)
    written = out.getvalue().splitlines()
    if as_json:
        assert [json.loads(line)["type"] for line in written] == ["worker-online"]
    else:
        assert written[0] == "-> evdump: starting capture..."
        assert "started" in written[1]
