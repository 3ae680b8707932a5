"""`qcli inspect`: ask workers about their state; changes nothing."""

from __future__ import annotations

from typing import Any

import click

from qcli.context import CliContext
from qcli.options import global_options, remote_options
from qcli.remote import ask
from qcli.remote_commands import INSPECT, RemoteCommand, describe, unknown


@click.command(epilog=describe(INSPECT))
@click.argument("command")
@click.argument("arguments", nargs=-1)
@remote_options
@global_options
def inspect(
    cli: CliContext,
    command: str,
    arguments: tuple[str, ...],
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
) -> None:
    """Ask the workers: COMMAND is one of those below."""
    known = INSPECT.get(command)
    if known is None:
        unknown(command, INSPECT, "inspect")
    assert isinstance(known, RemoteCommand)
    values: dict[str, Any] = known.parse(arguments)
    ask(cli, known.wire_name, values, timeout=timeout, destination=destination, as_json=as_json)
