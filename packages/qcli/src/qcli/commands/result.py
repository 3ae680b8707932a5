"""`qcli result`: show the result of a task."""

from __future__ import annotations

import click

from qcli.context import CliContext
from qcli.errors import EX_FAILURE, Problem
from qcli.options import global_options


@click.command()
@click.argument("task_id")
@click.option("-t", "--task", help="Name of the task, when it has a result store of its own.")
@click.option("--traceback", is_flag=True, help="Show the traceback of a failure.")
@click.option("--timeout", type=float, help="Seconds to wait; default until it is there.")
@click.option("--no-wait", is_flag=True, help="Show the state at once.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print the record as JSON.")
@global_options
def result(
    cli: CliContext,
    task_id: str,
    task: str | None,
    traceback: bool,
    timeout: float | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Wait for the result of the task TASK_ID and print it."""
    from qcore.errors import TimeoutError

    app = cli.app
    found = app.tasks[task].AsyncResult(task_id) if task else app.AsyncResult(task_id)
    if not no_wait:
        try:
            found.get(timeout=timeout, propagate=False)
        except TimeoutError as exc:
            raise Problem(
                f"no result of {task_id} within {timeout} s; its state is {found.state}", EX_FAILURE
            ) from exc
    if as_json:
        value = found.result
        cli.output.json(
            {
                "id": task_id,
                "state": found.state,
                "result": repr(value) if isinstance(value, BaseException) else value,
                "traceback": found.traceback,
            }
        )
        return
    if traceback and found.traceback:
        cli.output.print(found.traceback)
    elif no_wait:
        cli.output.print(f"{found.state}: {found.result!r}")
    else:
        cli.output.print(repr(found.result) if found.failed() else str(found.result))
