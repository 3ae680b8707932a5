"""What both applications are told, by the environment of the test run."""

from __future__ import annotations

import os

BROKER = os.environ["INTEROP_BROKER"]
RESULTS = os.environ["INTEROP_RESULTS"]
Q = os.environ["INTEROP_QUEUE_Q"]
"""The queue that our worker consumes."""
CELERY = os.environ["INTEROP_QUEUE_CELERY"]
"""The queue that Celery's worker consumes."""

SETTINGS = {
    "broker_url": BROKER,
    "result_backend": RESULTS,
    "task_default_queue": Q,
    "result_extended": True,
    "task_send_sent_event": True,
    "broker_connection_retry_on_startup": True,
}
