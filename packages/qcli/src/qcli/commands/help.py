"""`qcli help [COMMAND]`."""

from __future__ import annotations

import click


@click.command()
@click.argument("command", required=False)
@click.pass_context
def help(ctx: click.Context, command: str | None) -> None:
    """Show help, also of a sub-command."""
    parent = ctx.parent
    assert parent is not None
    assert isinstance(parent.command, click.Group)
    if command is None:
        click.echo(parent.get_help())
        return
    found = parent.command.get_command(parent, command)
    if found is None:
        parent.fail(f"No such command {command!r}. `qcli help` lists them all.")
    with click.Context(found, info_name=command, parent=parent) as sub:
        click.echo(found.get_help(sub))
