"""`qcli call`: send a call of a task by name."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from qcli.context import CliContext
from qcli.errors import EX_FAILURE, Problem
from qcli.options import JSON_ARRAY, JSON_OBJECT, MOMENT, SECONDS_OR_MOMENT, global_options


@click.command()
@click.argument("name")
@click.option(
    "-a", "--args", "arguments", type=JSON_ARRAY, default="[]", help='Positional arguments: "[1, 2]".'
)
@click.option(
    "-k", "--kwargs", "keywords", type=JSON_OBJECT, default="{}", help="Keyword arguments: '{\"x\": 1}'."
)
@click.option("--eta", type=MOMENT, help="Earliest time, ISO 8601.")
@click.option("--countdown", type=float, help="Earliest time, seconds from now.")
@click.option("--expires", type=SECONDS_OR_MOMENT, help="Latest start: seconds from now, or ISO 8601.")
@click.option("--serializer", default=None, help="Serializer; default the task's.")
@click.option("--queue", help="Queue to send to.")
@click.option("--exchange", help="Exchange to send to.")
@click.option("--routing-key", help="Routing key.")
@click.option("--priority", type=click.IntRange(0, 255), help="Priority; 9 is highest with ten levels.")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("-t", "--timeout", type=float, help="With --wait: seconds to wait.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
@global_options
def call(
    cli: CliContext,
    name: str,
    arguments: list[Any],
    keywords: dict[str, Any],
    eta: datetime | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Send a call of the task NAME and print its id."""
    if eta is not None and options.get("countdown") is not None:
        raise Problem("give either --eta or --countdown, not both", 64)
    app = cli.app
    result = app.send_task(
        name,
        arguments,
        keywords,
        eta=eta,
        **{key: value for key, value in options.items() if value is not None},
    )
    if not wait:
        cli.output.json({"id": result.id}) if as_json else cli.output.print(result.id)
        return
    try:
        value = result.get(timeout=timeout)
    except Exception as exc:
        raise Problem(f"task {name}[{result.id}]: {type(exc).__name__}: {exc}", EX_FAILURE) from exc
    cli.output.json({"id": result.id, "result": value}) if as_json else cli.output.print(repr(value))
