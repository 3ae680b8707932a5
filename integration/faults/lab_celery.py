"""The same queue and the same tasks for stock Celery; as a program, a client: `lab_celery.py FIRST LAST`."""

from __future__ import annotations

import os
import sqlite3
import sys
import time

from celery import Celery

app = Celery("lab", broker=os.environ["LAB_BROKER"], backend=os.environ["LAB_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["LAB_QUEUE"],
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
)


@app.task(name="lab.late", acks_late=True, reject_on_worker_lost=True)
def late(number: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    db = sqlite3.connect("effects.db", timeout=30)
    try:
        db.execute("pragma synchronous=off")
        with db:
            db.execute("insert into effect (number, pid) values (?, ?)", (number, os.getpid()))
    finally:
        db.close()
    return number


if __name__ == "__main__":
    sent = [late.delay(number, seconds=0.01) for number in range(*map(int, sys.argv[1:3]))]
    print("sent", flush=True)
    for result in sent:
        result.get(timeout=120)
    print("all results", flush=True)
