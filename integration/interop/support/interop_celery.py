"""Celery's side: what its worker loads with `-A`, and the names that a client's lines use."""

from __future__ import annotations

import os

from celery import Celery, chain, chord, group, signature
from celery.exceptions import ImproperlyConfigured, TaskRevokedError
from interop_settings import CELERY, SETTINGS, Q
from interop_tasks import register

app = Celery("interop")
app.conf.update(SETTINGS)
if os.environ["INTEROP_CELERY_TRANSPORT"]:
    app.conf.broker_transport = os.environ["INTEROP_CELERY_TRANSPORT"]
tasks = register(app)
globals().update(tasks)
__all__ = [
    "CELERY",
    "ImproperlyConfigured",
    "Q",
    "TaskRevokedError",
    "app",
    "chain",
    "chord",
    "group",
    "signature",
    *tasks,
]
