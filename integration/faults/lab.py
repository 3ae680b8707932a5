"""The app of the fault tests; a `Project` copies it into its directory and tells it the rest by environment."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from typing import Any, NoReturn

from qcore import App

app = App("lab", broker=os.environ["LAB_BROKER"] or None, backend=os.environ["LAB_BACKEND"] or None)
app.conf.update(
    task_default_queue=os.environ["LAB_QUEUE"],
    broker_transport_options={
        "lease_seconds": float(os.environ["LAB_LEASE"]),
        **json.loads(os.environ.get("LAB_TRANSPORT", "{}")),
    },
    broker_connection_retry_on_startup=True,
    **json.loads(os.environ["LAB_SETTINGS"]),
)


def trace(number: int) -> None:
    """One row, there for good as soon as this returns, however the process ends then."""
    db = sqlite3.connect("effects.db", timeout=30)
    try:
        db.execute("pragma synchronous=off")  # no machine is cut off its power here
        with db:
            db.execute("insert into effect (number, pid) values (?, ?)", (number, os.getpid()))
    finally:
        db.close()


@app.task(acks_late=True, reject_on_worker_lost=True)
def late(number: int, seconds: float = 0.0) -> int:
    if seconds:
        time.sleep(seconds)  # the work that a kill interrupts
    trace(number)
    return number


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def early(number: int) -> int:
    trace(number)
    return number


@app.task
def hold(number: int, seconds: float) -> int:
    """Traces its begin, then works on."""
    trace(number)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.02)  # in pieces, as threads can be interrupted only between two of them
    return number


@app.task(acks_late=True, reject_on_worker_lost=True)
def late_hold(number: int, seconds: float) -> int:
    return hold.run(number, seconds)


@app.task
def fail(number: int) -> NoReturn:
    raise ValueError(f"number {number}")


@app.task
def much(size: int) -> str:
    return "x" * size


@app.task
def chatter(size: int) -> int:
    print("y" * size)
    return size


@app.task
def deep() -> Any:
    return deep.run()


@app.task
def leave(code: int) -> NoReturn:
    os._exit(code)


@app.task
def swell(megabytes: int) -> int:
    return len(bytearray(b"z") * (megabytes << 20))


class Unspeakable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Unpicklable(Exception):
    def __reduce__(self) -> NoReturn:
        raise TypeError("no pickle")


class KeywordsOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code


class Slotted(Exception):
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = sys.stdout


class OwnBase(BaseException):
    pass


def _local() -> Exception:
    class Local(Exception):
        pass

    return Local(lambda: None)


def _cycle() -> Exception:
    error = ValueError()
    error.__cause__ = error
    error.args = (error,)
    return error


NASTY = {
    "unspeakable": Unspeakable,
    "unpicklable": lambda: Unpicklable(1),
    "keywords only": lambda: KeywordsOnly(code=5),
    "slotted": Slotted,
    "local class": _local,
    "huge argument": lambda: ValueError("v" * 5_000_000),
    "bytes": lambda: ValueError(b"\xff\xfe", "\ud800"),
    "a cycle": _cycle,
    "no strings": lambda: ValueError(object(), {1: {2: object()}}),
    "a group": lambda: ExceptionGroup("group", [Unspeakable(), ValueError(1)]),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "stop": lambda: StopIteration(1),
    "generator exit": GeneratorExit,
    "own base": OwnBase,
}


@app.task
def nasty(kind: str) -> NoReturn:
    raise NASTY[kind]()
