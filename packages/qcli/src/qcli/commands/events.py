"""`qcli events`: show what happens in the cluster."""

from __future__ import annotations

import click

from qcli.context import CliContext
from qcli.errors import UsageProblem
from qcli.options import LOG_LEVEL, global_options


@click.command()
@click.option("-d", "--dump", is_flag=True, help="Print every event as a line of text.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print every event as a line of JSON.")
@click.option("-c", "--camera", metavar="CLASS", help="Take snapshots with this camera, `module:Class`.")
@click.option(
    "-F",
    "--frequency",
    "--freq",
    type=float,
    default=1.0,
    show_default=True,
    help="Seconds between snapshots.",
)
@click.option("-r", "--maxrate", metavar="RATE", help="Most snapshots: 10/m.")
@click.option("-l", "--loglevel", type=LOG_LEVEL, default="WARNING", show_default=True)
@global_options
def events(
    cli: CliContext,
    dump: bool,
    as_json: bool,
    camera: str | None,
    frequency: float,
    maxrate: str | None,
    loglevel: int,
) -> None:
    """Print the events of the cluster as they happen, or take snapshots of its state. Ctrl-C ends it.

    Workers send task events when started with -E, or after `qcli control enable_events`.
    """
    app = cli.app
    if camera:
        from qevents.snapshot import evcam

        app.log.setup(loglevel)
        evcam(app, camera, freq=frequency, maxrate=maxrate)
        return
    if not (dump or as_json):
        raise UsageProblem(
            "choose what to show: --dump (text), --json (lines of JSON) or --camera CLASS (snapshots)"
        )
    from qevents.dumper import evdump

    evdump(app, as_json=as_json)
