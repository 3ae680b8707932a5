"""`app.Worker`, `app.WorkController` and `app.worker_main`: what the app finds by entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qworker import worker


def Worker(app: Any) -> Callable[..., worker.Worker]:
    """`app.Worker(**options)`."""
    return partial(worker.Worker, app)


def WorkController(app: Any) -> Callable[..., worker.WorkController]:
    """`app.WorkController(**options)`."""
    return partial(worker.WorkController, app)


def worker_main(app: Any) -> Callable[..., int]:
    """`app.worker_main(argv)`: run a worker as the command line would."""

    def main(argv: Sequence[str] | None = None, **options: Any) -> int:
        from qcore import plugins

        if argv is None:
            return worker.Worker(app, **options).start()
        command: Any = plugins.load("qcli.commands", "worker")
        return int(command.main(list(argv), obj=app, standalone_mode=False) or 0)

    return main
