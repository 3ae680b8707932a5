"""A worker in a process of its own, for the tests of signals: options as a Python dict in the first argument.

Its broker and results are SQLite files in the working directory; tasks write what they do into `journal`.
"""

from __future__ import annotations

import ast
import logging
import os
import signal
import sys
import time

from qcore import App

app = App("program", task_default_queue="celery")


def note(text: str) -> None:
    with open("journal", "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


@app.task(name="p.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="p.early")
def early(number: int, seconds: float) -> int:
    note(f"start {number}")
    time.sleep(seconds)
    note(f"end {number}")
    return number


@app.task(name="p.late", acks_late=True)
def late(number: int, seconds: float) -> int:
    note(f"start {number}")
    time.sleep(seconds)
    note(f"end {number}")
    return number


@app.task(name="p.kill_once", acks_late=True, reject_on_worker_lost=True)
def kill_once(number: int) -> int:
    note(f"start {number}")
    if not os.path.exists(f"killed-{number}"):
        open(f"killed-{number}", "w", encoding="utf-8").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@app.task(name="p.kill_always", acks_late=True, reject_on_worker_lost=True)
def kill_always() -> None:
    note("killed")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="p.kill", acks_late=True)
def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="p.hard", time_limit=0.5)
def hard() -> None:
    time.sleep(30)


@app.task(name="p.soft", soft_time_limit=0.3)
def soft() -> str:
    from qcore.errors import SoftTimeLimitExceeded

    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "not interrupted"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    options = ast.literal_eval(sys.argv[1])
    settings = options.pop("settings", {})
    app.conf.update(settings)
    from qworker.worker import Worker

    sys.exit(Worker(app, **options).start())
