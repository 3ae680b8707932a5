"""The task queues that are measured: how to install each, start its worker and ask for its version."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from peers import CELERY, peer_python

BROKERS = ("redis", "amqp")
CONCURRENCY = 2


@dataclass(frozen=True, slots=True)
class Library:
    """One task queue."""

    name: str
    requirements: tuple[str, ...]
    """Empty: ours, in the environment that runs the benchmark."""
    worker: tuple[str, ...]
    """Command line, the program first; `{queue}` and `{broker}` are filled in."""
    version: tuple[str, ...]
    imports: str
    brokers: tuple[str, ...] = BROKERS
    note: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return f"{self.name}_app"

    def python(self) -> Path:
        """Its interpreter; installs the library on first use."""
        if not self.requirements:
            return Path(sys.executable)
        return peer_python(self.name, self.requirements)


_CELERY_LIKE = ("worker", "-l", "WARNING", "-c", str(CONCURRENCY), "-Q", "{queue}")

LIBRARIES = {
    library.name: library
    for library in (
        Library(
            "q",
            (),
            ("qcli", "-A", "bench.apps.q_app:app", *_CELERY_LIKE),
            ("qcli", "--version"),
            "from qcore import App",
        ),
        Library(
            "celery",
            CELERY,
            ("celery", "-q", "-A", "bench.apps.celery_app:app", *_CELERY_LIKE),
            ("celery", "--version"),
            "from celery import Celery",
        ),
        Library(
            "dramatiq",
            ("dramatiq[redis,rabbitmq]>=2",),
            ("dramatiq", "bench.apps.dramatiq_app", "-p", str(CONCURRENCY), "-t", "1", "-Q", "{queue}"),
            ("dramatiq", "--version"),
            "import dramatiq",
            note="-p 2 -t 1",
        ),
        Library(
            "taskiq",
            ("taskiq", "taskiq-redis", "taskiq-aio-pika"),
            (
                *("taskiq", "worker", "bench.apps.taskiq_app:broker", "--workers", str(CONCURRENCY)),
                *("--max-async-tasks", "32", "--max-prefetch", "32", "--log-level", "WARNING"),
            ),
            ("taskiq", "--version"),
            "import taskiq",
            note="asyncio, 32 tasks at once per process",
        ),
        Library(
            "huey",
            ("huey", "redis"),
            (
                *("huey_consumer", "bench.apps.huey_app.huey", "-k", "process", "-w", str(CONCURRENCY)),
                *("-d", "0.001", "-C", "-q"),
            ),
            ("python", "-c", "import huey; print(huey.__version__)"),
            "import huey",
            brokers=("redis",),
            note="takes tasks off before they run: a crash loses them",
        ),
        Library(
            "rq",
            ("rq",),
            ("rq", "worker-pool", "-q", "-n", str(CONCURRENCY), "--url", "{broker}", "{queue}"),
            ("rq", "--version"),
            "import rq",
            brokers=("redis",),
            note="forks for every job",
        ),
    )
}
