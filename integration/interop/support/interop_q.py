"""Our side: what our worker loads with `-A`, and the names that a client's lines use."""

from __future__ import annotations

import os

from interop_settings import CELERY, SETTINGS, Q
from interop_tasks import register

from qcore import App, chain, chord, group, signature
from qcore.errors import ImproperlyConfigured, TaskRevokedError

app = App("interop")
app.conf.update(SETTINGS)
if os.environ["INTEROP_Q_TRANSPORT"]:
    app.conf.broker_transport = os.environ["INTEROP_Q_TRANSPORT"]
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
