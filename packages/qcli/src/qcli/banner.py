"""What a worker shows when it starts."""

from __future__ import annotations

import platform
from typing import Any

from qcli import __version__

LOGO = r"""
   ___
  / _ \
 | (_) |
  \__\_\ """.rstrip().strip("\n").splitlines()


def banner(worker: Any, *, color: bool = False, show_tasks: bool = False) -> str:
    """Node, app, broker, results, pool, queues (and tasks) of a worker about to start."""
    app = worker.app
    queues = app.amqp.queues.format(indent=4).splitlines() or ["    (none)"]
    events = "ON" if worker.task_events else "OFF (enable -E to monitor tasks in this worker)"
    lines = [
        "",
        f" {worker.hostname} {__version__}",
        "",
        f" {platform.platform()}  Python {platform.python_version()}",
        "",
        " [config]",
        f" .> app:         {app.main or '__main__'}",
        f" .> transport:   {worker.broker_uri}",
        f" .> results:     {worker.results_uri}",
        f" .> concurrency: {worker.concurrency} ({worker.pool_name})",
        f" .> task events: {events}",
        "",
        " [queues]",
        *[f" {line.strip()}" for line in queues],
    ]
    if show_tasks:
        lines += ["", " [tasks]", *[f"   . {name}" for name in sorted(app.tasks.regular())]]
    return "\n".join([*lines, ""])
