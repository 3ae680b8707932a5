"""`qcli status`: list the workers that are online."""

from __future__ import annotations

import click

from qcli.context import CliContext
from qcli.options import global_options, remote_options
from qcli.remote import ask


@click.command()
@remote_options
@global_options
def status(cli: CliContext, timeout: float, destination: list[str] | None, as_json: bool) -> None:
    """List the workers that are online."""
    ask(cli, "ping", {}, timeout=timeout, destination=destination, as_json=as_json, show_body=False)
