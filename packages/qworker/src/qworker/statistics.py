"""What the worker tells about itself: the command `stats`, and the start-up screen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from qworker import __version__
from qworker.banner import Banner

if TYPE_CHECKING:
    from qworker.worker import WorkController

RUSAGE_FIELDS = (
    "utime", "stime", "maxrss", "ixrss", "idrss", "isrss", "minflt", "majflt", "nswap", "inblock", "oublock",
    "msgsnd", "msgrcv", "nsignals", "nvcsw", "nivcsw",
)  # fmt: skip


def stats(worker: WorkController) -> dict[str, Any]:
    """Statistics of the worker, its pool, broker and autoscaler."""
    info: dict[str, Any] = {
        "total": dict(worker.state.total),
        "pid": os.getpid(),
        "clock": str(worker.app.clock.value),
        "uptime": round(worker.uptime_seconds),
    }
    info.update(worker.blueprint.info(worker))
    consumer = worker.consumer
    if consumer is not None:
        info.update(consumer.blueprint.info(consumer))
    info["rusage"] = rusage()
    return info


def rusage() -> dict[str, Any] | str:
    """`getrusage(2)` of this process; `N/A` where there is none."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return "N/A"
    usage = getrusage(RUSAGE_SELF)
    return {name: getattr(usage, f"ru_{name}") for name in RUSAGE_FIELDS}


def banner(worker: WorkController) -> Banner:
    """The data of the start-up screen."""
    app = worker.app
    concurrency = str(worker.concurrency)
    if worker.autoscale is not None:
        concurrency = f"{{min={worker.min_concurrency}, max={worker.max_concurrency}}}"
    pool = getattr(worker.pool, "name", str(worker.pool_name))
    return Banner(
        hostname=worker.hostname,
        version=__version__,
        app=f"{app.main or '__main__'}:0x{id(app):x}",
        broker=worker.broker_uri,
        results=worker.results_uri,
        concurrency=f"{concurrency} ({'processes' if pool == 'prefork' else pool})",
        pool=pool,
        events=worker.task_events,
        queues=app.amqp.queues.format(indent=0, indent_first=False),
        notice=embedded_notice(app),
        tasks=tuple(sorted(name for name in app.tasks if not name.startswith("celery."))),
    )


def embedded_notice(app: Any) -> str | None:
    """One line that says that nothing is configured, and what is used; None otherwise."""
    if app.conf.broker_url:
        return None
    return (
        "No broker is configured: tasks and results are kept in SQLite files under .q/ in this directory. That is "
        "durable, and good for several processes on one machine; set broker_url for more."
    )


def report(app: Any) -> str:
    """Versions, platform and settings, for bug reports; secrets are masked."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    software = []
    for name in ("qcore", "qworker", "qbrokers", "qbackends", "kombu", "billiard", "redis", "amqp"):
        try:
            software.append(f"{name}:{version(name)}")
        except PackageNotFoundError:
            continue
    with app.connection_for_write() as connection:
        broker = connection.as_uri()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    lines = [
        f"software -> {' '.join(software)}",
        f"platform -> {system}   python -> {python}",
        f"broker -> {broker}   results -> {getattr(app.backend, 'url', None) or 'disabled'}",
        "",
        app.conf.humanize(with_defaults=False, censored=True),
    ]
    return "\n".join(lines)
