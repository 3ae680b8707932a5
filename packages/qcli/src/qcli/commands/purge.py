"""`qcli purge`: delete all waiting messages."""

from __future__ import annotations

import click

from qcli.context import CliContext
from qcli.options import COMMA_LIST, global_options, need_broker


@click.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-Q", "--queues", type=COMMA_LIST, metavar="NAMES", help="Only these queues.")
@click.option("-X", "--exclude-queues", type=COMMA_LIST, metavar="NAMES", help="All but these queues.")
@click.option("-n", "--dry-run", is_flag=True, help="Only count the messages.")
@click.option(
    "-j", "--json", "as_json", is_flag=True, help="Print queue name to number of messages; implies --force."
)
@global_options
def purge(
    cli: CliContext,
    force: bool,
    queues: list[str] | None,
    exclude_queues: list[str] | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete every message that waits in the app's task queues. There is no undo."""
    app, output = cli.app, cli.output
    excluded = set(exclude_queues or ())
    names = sorted(set(queues or app.amqp.queues.keys()) - excluded)
    if not names:
        output.print("No queues are left to purge.")
        return
    need_broker(app)
    listed = ", ".join(names)
    if not (force or dry_run or as_json):
        output.warn(
            f"This removes all tasks waiting in: {listed}.\nThere is no undo. Use --force to skip this question."
        )
        click.confirm("Delete them all?", abort=True)
    counts: dict[str, int] = {}
    with app.connection_for_write() as connection:
        for name in names:
            counts[name] = _empty(app, connection, name, dry_run)
    if as_json:
        output.json(counts)
        return
    total, known = sum(counts.values()), len(names)
    plural = "" if known == 1 else "s"
    if dry_run:
        output.print(f"{total} message{'' if total == 1 else 's'} wait in {known} queue{plural}: {counts}")
    elif total:
        output.print(
            f"Purged {total} message{'' if total == 1 else 's'} from {known} known task queue{plural}."
        )
    else:
        output.print(f"No messages purged from {known} queue{plural}.")


def _empty(app: object, connection: object, name: str, dry_run: bool) -> int:
    queue = app.amqp.queues[name](connection.default_channel)  # type: ignore[attr-defined]
    declared = queue.queue_declare()
    return int(declared.message_count if dry_run else queue.purge() or 0)
