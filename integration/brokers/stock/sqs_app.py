"""The app of the SQS tests that need a worker process; its tasks leave traces in a file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from qcore import App

app = App("sqs", broker=os.environ["SQS_URL"], set_as_current=False)
app.conf.update(json.loads(os.environ["SQS_SETTINGS"]))


@app.task(name="sqs.hold", acks_late=True)
def hold(traces: str, name: str, seconds: float) -> None:
    """Trace the begin, work, trace the end."""
    _trace(traces, f"begin {name}")
    time.sleep(seconds)  # the work
    _trace(traces, f"end {name}")


def _trace(traces: str, line: str) -> None:
    with Path(traces).open("a") as file:
        file.write(line + "\n")
