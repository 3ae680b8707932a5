"""`qcli dlq`: look at dead letters, run them again, or delete them.

A worker puts a message that it cannot run into the queue `<queue>.dead`, with the history in headers `x-dead-letter-…`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from qcli.context import CliContext
from qcli.dead_letters import DeadLetter, DeadLetters
from qcli.errors import Problem, UsageProblem
from qcli.options import COMMA_LIST, global_options, need_broker

F = TypeVar("F", bound=Callable[..., Any])

HISTORY = (
    "reason",
    "queue",
    "exchange",
    "routing-key",
    "at",
    "deliveries",
    "first-death",
    "last-death",
    "node",
)


@click.group()
def dlq() -> None:
    """Dead letters: tasks that killed their workers, that nobody knows, or that cannot be read."""


def _common(function: F) -> F:
    options = (
        click.option(
            "-Q", "--queue", "queues", type=COMMA_LIST, metavar="NAMES",
            help="Only of these queues (the name without `.dead`); default all of the app's.",
        ),
        click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return global_options(function)


@dlq.command("list")
@click.option(
    "-n", "--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many per queue."
)
@_common
def list_(cli: CliContext, limit: int, queues: list[str] | None, as_json: bool) -> None:
    """List the queues with dead letters, and their messages."""
    found: list[dict[str, Any]] = []
    with _open(cli, queues) as letters:
        for queue in letters.queues():
            total = letters.count(queue)
            messages = letters.read(queue, limit)
            found += [letter.summary() for letter in messages]
            if not as_json:
                _print_queue(cli, queue, total, messages)
    if as_json:
        cli.output.json(found)
    elif not found:
        cli.output.print("There are no dead letters.")


@dlq.command()
@click.argument("id")
@_common
def show(cli: CliContext, id: str, queues: list[str] | None, as_json: bool) -> None:
    """Show the dead letter of the task ID whole: headers, arguments, history."""
    with _open(cli, queues) as letters:
        chosen = _select(letters, [id], None, False)
        if as_json:
            cli.output.json(
                [letter.details() for letter in chosen] if len(chosen) > 1 else chosen[0].details()
            )
            return
        for letter in chosen:
            _print_letter(cli, letter)


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-a", "--all", "everything", is_flag=True, help="All of them.")
@click.option("-t", "--task", metavar="NAME", help="Those of this task.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show which.")
@_common
def replay(
    cli: CliContext,
    ids: tuple[str, ...],
    everything: bool,
    task: str | None,
    dry_run: bool,
    queues: list[str] | None,
    as_json: bool,
) -> None:
    """Send dead letters back to the queues they came from, with their count of deliveries set back to 0.

    Each is published first and then removed here: a crash in between leaves it in both places, never in none.
    """
    if not ids and not everything and not task:
        raise UsageProblem("say which: the ids of tasks, --task NAME, or --all")
    done: list[dict[str, Any]] = []
    with _open(cli, queues) as letters:
        for letter in _select(letters, ids, task, everything):
            if not dry_run:
                letters.replay(letter)
            done.append(letter.summary())
            if not as_json:
                verb = "Would send" if dry_run else "Sent"
                cli.output.print(f"{verb} {letter.id} ({letter.task}) to {letter.origin}")
    if as_json:
        cli.output.json(done)
    elif not done:
        cli.output.print("There are no such dead letters.")


@dlq.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@_common
def purge(cli: CliContext, force: bool, queues: list[str] | None, as_json: bool) -> None:
    """Delete dead letters. There is no undo."""
    with _open(cli, queues) as letters:
        names = letters.queues()
        counts = {name: letters.count(name) for name in names}
        if not any(counts.values()):
            cli.output.json({}) if as_json else cli.output.print("There are no dead letters.")
            return
        if not force:
            listed = ", ".join(f"{count} in {name}" for name, count in counts.items())
            cli.output.warn(
                f"This deletes dead letters: {listed}.\nThere is no undo. --force skips this question."
            )
            click.confirm("Delete them all?", abort=True, err=as_json)
        deleted = {name: letters.purge(name) for name in names}
    if as_json:
        cli.output.json(deleted)
    else:
        for name, count in deleted.items():
            cli.output.print(f"Deleted {count} message{'' if count == 1 else 's'} from {name}.")


def _open(cli: CliContext, queues: list[str] | None) -> DeadLetters:
    need_broker(cli.app)
    return DeadLetters(cli.app, queues)


def _select(letters: DeadLetters, ids: Sequence[str], task: str | None, everything: bool) -> list[DeadLetter]:
    """The letters that are meant.

    Raises:
        Problem: an id is not there.
    """
    known = [letter for queue in letters.queues() for letter in letters.read(queue)]
    missing = set(ids) - {letter.id for letter in known}
    if missing:
        raise Problem(
            f"no dead letter of {', '.join(sorted(missing))} in {', '.join(letters.names)}; `qcli dlq list` shows "
            "what is there, --queue looks into a queue that the app does not name"
        )
    chosen = [letter for letter in known if everything or task or letter.id in ids]
    return [letter for letter in chosen if task is None or letter.task == task]


def _print_queue(cli: CliContext, queue: str, total: int, messages: list[DeadLetter]) -> None:
    cli.output.print(f"{queue}: {total} message{'' if total == 1 else 's'}")
    for letter in messages:
        row = letter.summary()
        cli.output.print(f"  {row['id']}  {row['task']}  {row['at']}  deliveries lost: {row['deliveries']}")
        cli.output.print(f"      {row['reason']}")
    if total > len(messages):
        cli.output.print(f"  … and {total - len(messages)} more (--limit)")


def _print_letter(cli: CliContext, letter: DeadLetter) -> None:
    output = cli.output
    details = letter.details()
    output.print(f"id:        {letter.id}")
    output.print(f"task:      {letter.task}")
    output.print(f"arguments: {details['args']} {details['kwargs']}")
    output.print("history:")
    for name in HISTORY:
        if (value := letter.told(name)) is not None:
            output.print(f"  {name + ':':<13}{value}")
    output.print("headers:")
    for name, value in sorted(details["headers"].items()):
        if not name.startswith("x-dead-letter-"):
            output.print(f"  {name}: {value!r}")
    output.print(f"body ({letter.message.content_type}): {details['body']}")
