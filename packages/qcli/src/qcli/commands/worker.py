"""`qcli worker`: start a worker."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from qcli.banner import render
from qcli.context import CliContext
from qcli.daemon import become, detach, pid_file
from qcli.errors import Problem
from qcli.options import COMMA_LIST, LOG_LEVEL, ParamType, daemon_options, global_options
from qcore.utils.nodes import expand_nodename, expand_path


class Autoscale(ParamType):
    """`MAX,MIN` in any order, or one number: from 0 up to it."""

    name = "max,min"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = [int(word) for word in value.split(",")]
            low, high = sorted([*numbers, 0][:2])
        except ValueError:
            self.fail(f"{value!r}: give two whole numbers, as --autoscale=10,3", param, ctx)
        return high, low


class Concurrency(ParamType):
    """A number of slots, or `auto` for one per core that this process may use."""

    name = "n|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            self.fail(f"{value!r}: give a whole number from 1 on, or `auto`", param, ctx)
        return number


class WorkerCommand(click.Command):
    """Adds the options in `app.user_options["worker"]` once the app is known."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        cli = getattr(parent, "obj", None)
        if isinstance(cli, CliContext) and cli.has_app:
            from qcli.errors import explained

            with explained():
                own = {param.name for param in self.params}
                for option in cli.app.user_options.get("worker", ()):
                    if isinstance(option, click.Parameter) and option.name not in own:
                        self.params.append(option)
        return super().make_context(info_name, args, parent, **extra)


@click.command(
    cls=WorkerCommand, context_settings={"ignore_unknown_options": False, "allow_extra_args": True}
)
@click.option(
    "-n",
    "--hostname",
    metavar="NAME",
    help="Node name; %h is the host name, %n its first part, %d its domain. Default q@%h.",
)
@click.option("-l", "--loglevel", type=LOG_LEVEL, default="WARNING", show_default=True)
@click.option("-c", "--concurrency", type=Concurrency(), help="Slots; default one per core.")
@click.option(
    "-P", "--pool", metavar="NAME", help="prefork (default), threads, asyncio, solo, gevent, eventlet."
)
@click.option(
    "-Q",
    "--queues",
    type=COMMA_LIST,
    metavar="NAMES",
    help="Queues to consume from; default all of task_queues.",
)
@click.option("-X", "--exclude-queues", type=COMMA_LIST, metavar="NAMES", help="Queues not to consume from.")
@click.option("-I", "--include", type=COMMA_LIST, metavar="MODULES", help="More modules with tasks.")
@click.option(
    "-E", "--task-events", "--events", is_flag=True, default=None, help="Send events of tasks, for monitors."
)
@click.option(
    "-O", "optimization", type=click.Choice(["default", "fair"]), help="Accepted; fair is what we do."
)
@click.option("--prefetch-multiplier", type=int, help="Messages to fetch ahead, per slot.")
@click.option("--disable-prefetch", is_flag=True, default=None, help="Fetch only what can start at once.")
@click.option("--time-limit", type=float, help="Seconds after which a task is killed.")
@click.option("--soft-time-limit", type=float, help="Seconds after which a task gets SoftTimeLimitExceeded.")
@click.option("--max-tasks-per-child", type=click.IntRange(1), help="Replace a process after so many tasks.")
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(1),
    metavar="KIB",
    help="Replace a process that uses more memory.",
)
@click.option("--autoscale", type=Autoscale(), help="Grow and shrink the pool between these sizes.")
@click.option(
    "--purge", "--discard", "purge", is_flag=True, help="Delete all waiting messages first. There is no undo."
)
@click.option("-S", "--statedb", metavar="PATH", help="File that keeps revoked ids over restarts.")
@click.option("--without-gossip", is_flag=True, help="Do not listen to other workers.")
@click.option("--without-mingle", is_flag=True, help="Do not ask other workers at start.")
@click.option("--without-heartbeat", is_flag=True, help="Send no heartbeat events.")
@click.option("--heartbeat-interval", type=float, metavar="SECONDS", help="Time between heartbeat events.")
@click.option("-B", "--beat", is_flag=True, help="Run the scheduler of periodic tasks in this worker, too.")
@click.option(
    "-s",
    "--schedule",
    "--schedule-filename",
    "schedule",
    metavar="PATH",
    help="With -B: state file of the scheduler.",
)
@click.option("--scheduler", metavar="NAME", help="With -B: persistent (default), memory, or a class path.")
@daemon_options
@global_options
@click.pass_context
def worker(ctx: click.Context, cli: CliContext, /, **options: Any) -> None:
    """Run the tasks of your app. Stop it with Ctrl-C: running tasks are finished first."""
    app = cli.need_app("a worker")
    if ctx.args:
        app.config_from_cmdline(ctx.args, namespace="worker")
    logfile, pidfile = options.pop("logfile"), options.pop("pidfile")
    uid, gid, umask = options.pop("uid"), options.pop("gid"), options.pop("umask")
    background, purge = options.pop("detach"), options.pop("purge")
    options.pop("optimization")
    loglevel = options["loglevel"]
    hostname = expand_nodename(options["hostname"] or "")
    if background:
        detach()
    become(uid, gid, umask)
    with pid_file(_expand(pidfile, hostname)):
        instance = app.Worker(
            purge=purge, logfile=logfile, colorize=False if cli.no_color else None, **_given(options)
        )
        if not cli.quiet and not background:
            cli.output.print(render(instance.banner(), show_tasks=loglevel <= logging.INFO))
        exitcode = instance.start()
    if instance.restart_requested:
        os.execv(sys.executable, [sys.executable, "-m", "qcli", *sys.argv[1:]])
    sys.exit(exitcode)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; what is left out is for the settings to say."""
    return {name: value for name, value in options.items() if value not in (None, False)}


def _expand(path: str | None, hostname: str) -> str | None:
    if path is None:
        return None
    try:
        return expand_path(path, hostname)
    except ValueError as exc:
        raise Problem(f"{path}: {exc}", 64) from exc
