"""What `inspect`, `control` and `status` share: send a remote command, print the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from qcli.context import CliContext
from qcli.errors import Unavailable
from qcli.options import global_options, need_broker, remote_options
from qcli.remote_commands import RemoteCommand, describe, unknown
from qcore.errors import UnsupportedByBroker
from qcore.refusal import need_broadcast

NO_ANSWER = (
    "No nodes replied within time constraint. Is a worker running on this broker, with remote control enabled? "
    "A busy cluster may need a longer --timeout."
)


def ask(
    cli: CliContext,
    command: str,
    arguments: Mapping[str, Any],
    *,
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
    show_body: bool = True,
) -> dict[str, Any]:
    """Send the command, print every answer, return them all.

    Raises:
        Unavailable: nobody answered.
    """
    app = cli.app
    need_broker(app)
    _need_broadcast(app)
    replies = app.control.broadcast(
        command, dict(arguments), destination=destination, timeout=timeout, reply=True
    )
    answers: dict[str, Any] = {}
    for reply in replies or ():
        answers.update(reply)
    if not answers:
        raise Unavailable(NO_ANSWER)
    answers = dict(sorted(answers.items()))
    if as_json:
        cli.output.json(answers)
        return answers
    for node, answer in answers.items():
        cli.output.reply(node, answer, show_body=show_body and not cli.quiet)
    cli.output.say(f"\n{len(answers)} node{'' if len(answers) == 1 else 's'} online.")
    return answers


def _need_broadcast(app: Any) -> None:
    with app.connection_for_write() as connection:
        try:
            need_broadcast(connection, "remote control")
        except UnsupportedByBroker as exc:
            raise Unavailable(str(exc)) from exc


def remote_command(kind: str, commands: Mapping[str, RemoteCommand], help: str) -> click.Command:
    """The command `qcli KIND COMMAND [ARGUMENTS]`."""

    @click.command(kind, help=help, epilog=describe(commands))
    @click.argument("command")
    @click.argument("arguments", nargs=-1)
    @remote_options
    @global_options
    def run(
        cli: CliContext,
        command: str,
        arguments: tuple[str, ...],
        timeout: float,
        destination: list[str] | None,
        as_json: bool,
    ) -> None:
        known = commands.get(command) or of_the_project(cli, command, kind)
        if known is None:
            unknown(command, commands, kind)
        ask(
            cli,
            known.wire_name,
            known.parse(arguments),
            timeout=timeout,
            destination=destination,
            as_json=as_json,
        )

    return run


def of_the_project(cli: CliContext, name: str, kind: str) -> RemoteCommand | None:
    """A command that the project's own modules define (`@inspect_command`, `@control_command`)."""
    if not cli.has_app:
        return None
    from qworker.remote import panel

    cli.app.loader.import_default_modules()
    found = panel.commands.get(name)
    if found is None or found.type != kind:
        return None
    return RemoteCommand(
        found.name, found.help or "", tuple(found.args), variadic=found.variadic, usage=found.signature or ""
    )
