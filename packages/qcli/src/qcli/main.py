"""The command `qcli`: global options, and sub-commands that are imported when they are called."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import Any

import click

from qcli import __version__
from qcli.context import CliContext

BUILTIN = {
    "worker": ("worker", "Start a worker."),
    "beat": ("beat", "Start the scheduler of periodic tasks."),
    "call": ("call", "Send a call of a task by name."),
    "result": ("result", "Show the result of a task."),
    "status": ("status", "List the workers that are online."),
    "inspect": ("inspect", "Ask workers about their state."),
    "control": ("control", "Change workers while they run."),
    "purge": ("purge", "Delete all waiting messages."),
    "dlq": ("dlq", "Look at dead letters, run them again, delete them."),
    "events": ("events", "Show what happens in the cluster."),
    "report": ("report", "Show versions and settings, for bug reports."),
    "help": ("help", "Show help, also of a sub-command."),
}
GROUP = "qcli.commands"


class LazyGroup(click.Group):
    """A group whose commands are imported on use; plug-ins join by entry point group `qcli.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*BUILTIN, *_plugins()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in BUILTIN:
            module, _ = BUILTIN[name]
            command: click.Command = getattr(import_module(f"qcli.commands.{module}"), name)
            return command
        if name in _plugins():
            from qcore import plugins

            loaded = plugins.load(GROUP, name)
            return loaded if isinstance(loaded, click.Command) else None
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            close = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {name!r}.{hint} `qcli help` lists them all.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in BUILTIN.items()]
        rows += [(name, "Plug-in.") for name in sorted(_plugins())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugins() -> list[str]:
    from qcore import plugins

    return [name for name in plugins.available(GROUP) if name not in BUILTIN]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "Q"},
    epilog="Every option can also come from the environment: Q_APP, Q_BROKER_URL, Q_WORKER_CONCURRENCY, …",
)
@click.option(
    "-A",
    "--app",
    "app_name",
    metavar="MODULE",
    envvar="Q_APP",
    help="Your app: `proj`, `proj.q`, `proj.q:app`.",
)
@click.option("-b", "--broker", metavar="URL", envvar="Q_BROKER_URL", help="Broker; default the app's.")
@click.option(
    "--result-backend", metavar="URL", envvar="Q_RESULT_BACKEND", help="Result store; default the app's."
)
@click.option("--config", metavar="MODULE", envvar="Q_CONFIG_MODULE", help="Module with settings.")
@click.option("--workdir", metavar="DIR", help="Change to this directory first.")
@click.option("-C", "--no-color", is_flag=True, default=None, envvar="NO_COLOR", help="No colours.")
@click.option("-q", "--quiet", is_flag=True, help="Print results only.")
@click.version_option(__version__, prog_name="qcli", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Run workers and beat, call tasks, watch and steer a cluster."""
    if isinstance(ctx.obj, CliContext):  # `app.start()` brings the app along
        ctx.obj.override(**{name: value for name, value in options.items() if name != "app_name"})
    else:
        ctx.obj = CliContext(**options)


def main() -> None:
    """Entry point of the command."""
    argv = sys.argv[1:]
    if argv in (["--version"], ["version"]):  # the quick road: nothing else is imported
        click.echo(f"qcli {__version__}")
        return
    cli.main(args=argv, prog_name="qcli")
