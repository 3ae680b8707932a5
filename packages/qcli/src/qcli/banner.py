"""What a worker shows when it starts."""

from __future__ import annotations

import platform
from typing import Any


def render(facts: Any, *, show_tasks: bool = False) -> str:
    """The start-up screen.

    Args:
        facts: what `worker.banner()` tells: node, app, broker, results, pool, queues, tasks.
        show_tasks: list the registered tasks, too.
    """
    events = "ON" if facts.events else "OFF (enable -E to monitor tasks in this worker)"
    queues = facts.queues.splitlines() or [".> (none)"]
    lines = [
        "",
        f"  {facts.hostname}  q {facts.version}",
        f"  {platform.platform()}  Python {platform.python_version()}",
        "",
        "  [config]",
        f"  .> app:         {facts.app}",
        f"  .> transport:   {facts.broker}",
        f"  .> results:     {facts.results}",
        f"  .> concurrency: {facts.concurrency} ({facts.pool})",
        f"  .> task events: {events}",
        "",
        "  [queues]",
        *[f"  {line.strip()}" for line in queues],
    ]
    if facts.notice:
        lines += ["", f"  {facts.notice}"]
    if show_tasks:
        lines += ["", "  [tasks]", *[f"    . {name}" for name in facts.tasks]]
    return "\n".join([*lines, ""])
