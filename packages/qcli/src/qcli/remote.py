"""What `inspect`, `control` and `status` share: send a remote command, print the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcli.context import CliContext
from qcli.errors import Unavailable
from qcli.options import need_broker

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
