"""`app.start()`: the command line of a program that holds the app."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from qcli.context import CliContext
from qcli.main import cli


def starter(app: Any) -> Callable[..., None]:
    """`app.start(argv)`: run `qcli` with this app; default the arguments of the program."""

    def start(argv: Sequence[str] | None = None) -> None:
        context = CliContext(app_name=app.main or "__main__")
        context.use(app)
        cli.main(args=list(sys.argv[1:] if argv is None else argv), prog_name="qcli", obj=context)

    return start
