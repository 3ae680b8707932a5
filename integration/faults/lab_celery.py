"""The same queue and the same tasks for stock Celery."""

from __future__ import annotations

import json
import os
import sqlite3
import time

from celery import Celery

app = Celery("lab", broker=os.environ["LAB_BROKER"], backend=os.environ["LAB_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["LAB_QUEUE"],
    broker_transport_options=json.loads(os.environ.get("LAB_TRANSPORT", "{}")),
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
    result_backend_always_retry=True,  # else a result that cannot be stored makes the task a failed one
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
