"""`qcli beat`: start the scheduler of periodic tasks."""

from __future__ import annotations

import click

from qcli.context import CliContext
from qcli.daemon import become, detach, pid_file
from qcli.options import LOG_LEVEL, daemon_options, global_options


@click.command()
@click.option(
    "-s", "--schedule", metavar="PATH", help="State file; default the setting beat_schedule_filename."
)
@click.option("-S", "--scheduler", metavar="NAME", help="persistent (default), memory, or a class path.")
@click.option("-n", "--hostname", metavar="NAME", help="Node name for remote control.")
@click.option(
    "--max-interval", type=float, metavar="SECONDS", help="Longest sleep between looks at the schedule."
)
@click.option("-l", "--loglevel", type=LOG_LEVEL, default="WARNING", show_default=True)
@daemon_options
@global_options
def beat(
    cli: CliContext,
    schedule: str | None,
    scheduler: str | None,
    max_interval: float | None,
    hostname: str | None,
    loglevel: int,
    logfile: str | None,
    pidfile: str | None,
    uid: str | None,
    gid: str | None,
    umask: str | None,
    detach: bool,
) -> None:
    """Send the periodic tasks of your app when they are due. Run one only, unless they share a lock."""
    app = cli.need_app("beat")
    if detach:
        _go_background()
    become(uid, gid, umask)
    with pid_file(pidfile):
        app.log.setup(loglevel=loglevel, logfile=logfile, colorize=False if cli.no_color else None)
        service = app.Beat(
            schedule=schedule, scheduler=scheduler, max_interval=max_interval, hostname=hostname
        )
        if not cli.quiet:
            cli.output.say(f"beat of {app.main or app!r} is starting; Ctrl-C stops it.")
        service.run()


def _go_background() -> None:
    detach()
