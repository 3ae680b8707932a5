"""Reference pages that are made from the code when the documentation is built.

Directives: `settings-reference`, `command-reference`, `signals-reference`, `remote-commands`, `error-tree`,
`benchmark-figures`. Each writes Markdown and lets the page's own parser read it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]

GROUPS: Sequence[tuple[str, str, str]] = (
    # title, pattern of the names, anchor
    ("Tasks", r"task_(?!queue|route|create|default_(queue|exchange|routing|delivery)).*", "settings-tasks"),
    ("Queues and routing", r"task_.*|worker_direct", "settings-routing"),
    ("Broker", r"broker_.*", "settings-broker"),
    ("Results", r"result_.*|override_backends", "settings-results"),
    ("Result store: database", r"database_.*", "settings-database"),
    ("Result store: Redis", r"redis_.*", "settings-redis"),
    ("Worker", r"worker_.*", "settings-worker"),
    ("Beat", r"beat_.*", "settings-beat"),
    ("Events and remote control", r"(event|control|events)_.*", "settings-events"),
    ("Security", r"security_.*", "settings-security"),
    ("General", r"accept_content|enable_utc|timezone|imports|include", "settings-general"),
    ("Stores that this release does not ship", r".*", "settings-others"),
)


class Generated(SphinxDirective):
    """A directive without arguments whose content is Markdown text."""

    def run(self) -> list[nodes.Node]:
        """The nodes that the text becomes; read anew in every build, as the code may have changed."""
        self.env.note_reread()
        return list(self.parse_text_to_nodes("\n".join(self.lines()) + "\n", allow_section_headings=True))

    def lines(self) -> Iterable[str]:
        """The text."""
        return ()


def cell(text: object) -> str:
    """Text that may stand in a cell of a table."""
    return str(text).replace("|", "\\|").replace("\n", " ").strip()


def code(text: object) -> str:
    """Text as code in a cell of a table."""
    return f"`{cell(text)}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


# --- settings -----------------------------------------------------------------------------------------


class SettingsReference(Generated):
    """Every setting: name, kind, default, meaning."""

    def lines(self) -> Iterator[str]:
        from qcore.settings.table import OPTIONS

        unread = names_without_reader(OPTIONS)
        left = dict(OPTIONS)
        for title, pattern, anchor in GROUPS:
            names = [name for name in left if re.fullmatch(pattern, name)]
            if not names:
                continue
            options = [left.pop(name) for name in names]
            yield from (f"({anchor})=", f"## {title}", "")
            rows = ([code(o.name), kind_of(o), default_of(o), meaning_of(o, unread)] for o in options)
            yield from table(("setting", "takes", "default", "meaning"), rows)


def kind_of(option: Any) -> str:
    """What values an option takes."""
    if option.choices:
        return ", ".join(code(choice) for choice in option.choices)
    text = cell(option.kind.label)
    if option.minimum is not None:
        text += f", at least {option.minimum:g}"
    return text


def default_of(option: Any) -> str:
    """The default as one would write it."""
    value = option.default
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    return code(json.dumps(value)) if isinstance(value, str) else code(repr(value))


def meaning_of(option: Any, unread: frozenset[str]) -> str:
    """What the option does; said when nothing heeds it."""
    text = cell(option.help)
    return f"{text} *(accepted, without effect)*" if option.name in unread else text


def names_without_reader(names: Iterable[str]) -> frozenset[str]:
    """The settings that no code outside the table names: they are accepted for old configurations alone."""
    sources = [
        path.read_text()
        for path in (ROOT / "packages").glob("*/src/**/*.py")
        if path.name not in ("table.py", "old_names.py")
    ]
    words = set(re.findall(r"\w+", "\n".join(sources)))
    return frozenset(name for name in names if name not in words)


# --- the command --------------------------------------------------------------------------------------


class CommandReference(Generated):
    """Every sub-command of `qcli` with its options."""

    def lines(self) -> Iterator[str]:
        from qcli.main import cli

        with click.Context(cli, info_name="qcli") as context:
            yield from ("## Global options", "", "They stand before or after the sub-command.", "")
            yield from option_table(cli, context)
            for name in cli.list_commands(context):
                command = cli.get_command(context, name)
                if command is not None and not command.hidden:
                    yield from command_section(name, command, context)


def command_section(name: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    """Heading, usage, explanation and options of a sub-command."""
    with click.Context(command, info_name=name, parent=parent) as context:
        path = context.command_path
        yield from (f"({path.replace(' ', '-')})=", f"{'#' * len(path.split())} {path}", "")
        yield from ("```text", command.get_usage(context).removeprefix("Usage: "), "```", "")
        yield from ((command.help or "").replace("\b", ""), "")
        yield from option_table(command, context)
        if command.epilog:
            yield from ("```text", command.epilog.replace("\b\n", "").strip("\n"), "```", "")
        if isinstance(command, click.Group):
            for sub_name in command.list_commands(context):
                found = command.get_command(context, sub_name)
                if found is not None and not found.hidden:
                    yield from command_section(sub_name, found, context)


def option_table(command: click.Command, context: click.Context) -> Iterator[str]:
    """The options that `--help` shows."""
    records = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]
    if records:
        yield from table(("option", ""), ([code(names), cell(text)] for names, text in records))


class RemoteCommands(Generated):
    """The remote commands of `qcli inspect` and `qcli control`."""

    def lines(self) -> Iterator[str]:
        from qcli.remote_commands import CONTROL, INSPECT

        for title, commands in (("inspect", INSPECT), ("control", CONTROL)):
            rows = (
                [code(f"{name} {command.usage}".strip()), cell(command.help)]
                for name, command in commands.items()
            )
            yield from table((f"qcli {title} …", "what it does"), rows)


# --- signals and errors -------------------------------------------------------------------------------


class SignalsReference(Generated):
    """Every signal with the text that stands below it in the module."""

    def lines(self) -> Iterator[str]:
        import qcore.signals as module

        source = Path(module.__file__ or "").read_text()
        pattern = re.compile(r'^(\w+) = Signal\((.*?)\)\n"""(.*?)"""', re.MULTILINE | re.DOTALL)
        rows = []
        for name, arguments, text in pattern.findall(source):
            given = re.findall(r'"(\w+)"', arguments)[1:]
            rows.append([code(name), ", ".join(map(code, given)), cell(re.sub(r"\s+", " ", text))])
        yield from table(("signal", "arguments", "when"), rows)


class ErrorTree(Generated):
    """The tree in the docstring of `qcore.errors`."""

    def lines(self) -> Iterator[str]:
        import qcore.errors as module

        tree = re.search(r"```\n(.*?)```", module.__doc__ or "", re.DOTALL)
        yield from ("```text", tree.group(1).rstrip() if tree else "", "```", "")


# --- benchmarks ---------------------------------------------------------------------------------------


class BenchmarkFigures(Generated):
    """The figures in `docs/benchmarks.json`, which is what `tools/bench/run --json` prints, with medians."""

    def lines(self) -> Iterator[str]:
        path = Path(self.env.srcdir) / "benchmarks.json"
        if not path.exists():
            yield "No figures are kept with this copy. Run `tools/bench/run` to get those of your machine."
            return
        found = json.loads(path.read_text())
        yield from benchmark_tables(found)


def benchmark_tables(found: Mapping[str, Any]) -> Iterator[str]:
    """Markdown of the figures: measurement -> library -> values of the rounds, below `rows` or at the top."""
    from statistics import median

    rows: Mapping[str, Mapping[str, Any]] = found.get("rows", found)
    about = {key: str(found[key]) for key in ("machine", "versions", "tasks") if key in found}
    if "time" in found:
        about["measured"] = datetime.fromtimestamp(found["time"], UTC).date().isoformat()
    if "rows" in found and about:
        yield from ("; ".join(f"{key}: {value}" for key, value in about.items()) + ".", "")
    libraries = list(dict.fromkeys(name for values in rows.values() for name in values))
    lines = []
    for row, values in rows.items():
        medians = {name: median(v) if isinstance(v, list) else v for name, v in values.items() if v}
        ours, cells = medians.get("q"), []
        for name in libraries:
            value = medians.get(name)
            text = "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
            if name != "q" and value and ours:
                lower = row.endswith(("_ms", "_us", "_mb"))
                text += f" ({value / ours if lower else ours / value:.2f}x)"
            cells.append(text)
        lines.append([code(row), *cells])
    yield from table(("measurement", *libraries), lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("settings-reference", SettingsReference)
    app.add_directive("command-reference", CommandReference)
    app.add_directive("remote-commands", RemoteCommands)
    app.add_directive("signals-reference", SignalsReference)
    app.add_directive("error-tree", ErrorTree)
    app.add_directive("benchmark-figures", BenchmarkFigures)
    return {"version": "1", "parallel_read_safe": True}
