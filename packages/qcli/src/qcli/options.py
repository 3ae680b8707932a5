"""Options and parameter types that several commands share."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qcli.context import CliContext
from qcli.errors import Unavailable, explained, is_connection_error

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic only since click 8.5

F = TypeVar("F", bound=Callable[..., Any])

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")


class LogLevel(ParamType):
    """A level by name, in any case, or by number."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value.isdigit():
            return int(value)
        if value.upper() in LEVELS:
            return int(getattr(logging, value.upper()))
        return self.fail(
            f"{value!r} is no log level: choose one of {', '.join(LEVELS)}, or a number", param, ctx
        )


class CommaList(ParamType):
    """Comma-separated words."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        if isinstance(value, (list, tuple)):
            return list(value)
        return [word.strip() for word in value.split(",") if word.strip()]


class JsonOf(ParamType):
    """A JSON array or object."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind = kind
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, self.kind):
            return value
        try:
            decoded = json.loads(value)
        except ValueError as exc:
            self.fail(f"this is not JSON ({exc}); give a JSON {self.name}, quoted for the shell", param, ctx)
        if not isinstance(decoded, self.kind):
            self.fail(f"give a JSON {self.name}, not {value}", param, ctx)
        return decoded


class Moment(ParamType):
    """ISO 8601 text; one without offset is local time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            self.fail(
                f"{value!r} is no time: write it as 2026-01-31T12:00:00 or 2026-01-31T12:00:00+01:00",
                param,
                ctx,
            )


class SecondsOrMoment(Moment):
    """A number of seconds, or ISO 8601 text."""

    name = "seconds|time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return float(value)
        except (TypeError, ValueError):
            return super().convert(value, param, ctx)


LOG_LEVEL = LogLevel()
COMMA_LIST = CommaList()
JSON_ARRAY = JsonOf(list, "array")
JSON_OBJECT = JsonOf(dict, "object")
MOMENT = Moment()
SECONDS_OR_MOMENT = SecondsOrMoment()


def global_options(function: F) -> F:
    """`-A`, `-b` and the other global options, also after the sub-command; the command gets the `CliContext`."""

    @functools.wraps(function)
    @click.pass_context
    def command(ctx: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        cli = ctx.ensure_object(CliContext)
        cli.override(
            app_name=kwargs.pop("app_", None),
            broker=kwargs.pop("broker_", None),
            result_backend=kwargs.pop("result_backend_", None),
            config=kwargs.pop("config_", None),
            workdir=kwargs.pop("workdir_", None),
            no_color=kwargs.pop("no_color_", None),
            quiet=kwargs.pop("quiet_", False),
        )
        with explained():
            return function(cli, *args, **kwargs)

    options = (
        click.option(
            "-A",
            "--app",
            "app_",
            metavar="MODULE",
            help="Your app: `proj`, `proj.q`, `proj.q:app`.",
            hidden=True,
        ),
        click.option("-b", "--broker", "broker_", metavar="URL", hidden=True),
        click.option("--result-backend", "result_backend_", metavar="URL", hidden=True),
        click.option("--config", "config_", metavar="MODULE", hidden=True),
        click.option("--workdir", "workdir_", metavar="DIR", hidden=True),
        click.option("--no-color", "no_color_", is_flag=True, default=None, hidden=True),
        click.option("-q", "--quiet", "quiet_", is_flag=True, hidden=True),
    )
    for option in reversed(options):
        command = option(command)
    return command  # type: ignore[return-value]


def remote_options(function: F) -> F:
    """`--timeout`, `--destination`, `--json` of remote commands."""
    options = (
        click.option(
            "-t", "--timeout", type=float, default=1.0, show_default=True, help="Seconds to wait for answers."
        ),
        click.option(
            "-d",
            "--destination",
            type=COMMA_LIST,
            metavar="NODES",
            help="Comma-separated node names; default all.",
        ),
        click.option(
            "-j", "--json", "as_json", is_flag=True, help="Print one JSON object: node name to answer."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def daemon_options(function: F) -> F:
    """Log and pid file, user, group, umask, background."""
    options = (
        click.option(
            "-f",
            "--logfile",
            metavar="PATH",
            help="Log there instead of stderr; %n, %h, %i, %I are expanded.",
        ),
        click.option("--pidfile", metavar="PATH", help="Write the process id there; refuse to start twice."),
        click.option("--uid", metavar="USER", help="Run as this user (name or number)."),
        click.option("--gid", metavar="GROUP", help="Run as this group (name or number)."),
        click.option("--umask", metavar="OCTAL", help="File mode creation mask."),
        click.option("-D", "--detach", is_flag=True, help="Run in the background."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def need_broker(app: Any) -> None:
    """Fail early, and clearly, when the broker does not answer.

    Raises:
        Unavailable: it does not; the text names it.
    """
    from qcore.connections import connection_error_message

    with app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=app.conf.broker_connection_timeout or 4)
        except Exception as exc:
            if not is_connection_error(exc):
                raise
            raise Unavailable(connection_error_message(exc, connection)) from exc
