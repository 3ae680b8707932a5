"""Celery's side: what its worker loads with `-A`, and the names that a client's lines use."""

from __future__ import annotations

from celery import Celery, chain, chord, group, signature
from celery.exceptions import TaskRevokedError
from interop_settings import CELERY, SETTINGS, Q
from interop_tasks import register

app = Celery("interop")
app.conf.update(SETTINGS)
tasks = register(app)
globals().update(tasks)
__all__ = ["CELERY", "Q", "TaskRevokedError", "app", "chain", "chord", "group", "signature", *tasks]
