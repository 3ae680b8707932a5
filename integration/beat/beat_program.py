"""A beat with one entry, for tests that kill and freeze it: beat_program.py BROKER NAME SCHEDULER FILE."""

from __future__ import annotations

import sys
from typing import Any

from qbeat.schedulers.redis import RedisScheduler
from qcore import App
from qcore.signals import after_task_publish

broker, name, scheduler, filename = sys.argv[1:]


class QuickRedisScheduler(RedisScheduler):
    lease_seconds = 2.0


app = App(name, broker=broker, task_default_queue=name, timezone="UTC")
app.conf.beat_schedule = {"entry": {"task": "tasks.entry", "schedule": 0.5}}


@after_task_publish.connect
def sent(sender: Any = None, headers: Any = None, **kwargs: Any) -> None:
    print(headers["id"], flush=True)


app.Beat(
    scheduler=QuickRedisScheduler if scheduler == "redis" else scheduler, schedule=filename, max_interval=0.2
).run()
