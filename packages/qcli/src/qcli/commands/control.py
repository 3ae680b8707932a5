"""`qcli control`: change workers while they run."""

from __future__ import annotations

from typing import Any

import click

from qcli.context import CliContext
from qcli.options import global_options, remote_options
from qcli.remote import ask
from qcli.remote_commands import CONTROL, RemoteCommand, describe, unknown


@click.command(epilog=describe(CONTROL))
@click.argument("command")
@click.argument("arguments", nargs=-1)
@remote_options
@global_options
def control(
    cli: CliContext,
    command: str,
    arguments: tuple[str, ...],
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
) -> None:
    """Tell the workers: COMMAND is one of those below."""
    known = CONTROL.get(command)
    if known is None:
        unknown(command, CONTROL, "control")
    assert isinstance(known, RemoteCommand)
    values: dict[str, Any] = known.parse(arguments)
    ask(cli, known.wire_name, values, timeout=timeout, destination=destination, as_json=as_json)
