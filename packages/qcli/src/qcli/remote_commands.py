"""The remote commands by name, with the arguments that their words on the command line become."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from attrs import frozen

from qcli.errors import UsageProblem


def _number(text: str) -> int:
    return int(text)


def _seconds(text: str) -> float | None:
    return None if text.lower() in ("none", "null", "-") else float(text)


def _flag(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on")


def _text(text: str) -> str:
    return text


@frozen
class RemoteCommand:
    """One command: its name on the wire, its arguments in order, and what it does."""

    wire_name: str
    help: str
    arguments: tuple[tuple[str, Callable[[str], Any]], ...] = ()
    required: int = 0
    variadic: str | None = None
    """Name of the argument that takes all remaining words as a list."""
    usage: str = ""

    def parse(self, words: Sequence[str]) -> dict[str, Any]:
        """The arguments that `words` stand for.

        Raises:
            UsageProblem: too few, too many, or a word of the wrong kind.
        """
        if len(words) < self.required or (self.variadic is None and len(words) > len(self.arguments)):
            raise UsageProblem(f"usage: {self.wire_name} {self.usage}".rstrip())
        values: dict[str, Any] = {}
        for (name, convert), word in zip(self.arguments, words, strict=False):
            try:
                values[name] = convert(word)
            except ValueError as exc:
                raise UsageProblem(
                    f"{name}: {word!r} is not usable here. usage: {self.wire_name} {self.usage}"
                ) from exc
        if self.variadic is not None:
            values[self.variadic] = list(words[len(self.arguments) :])
        return values


INSPECT: Mapping[str, RemoteCommand] = {
    "active": RemoteCommand("active", "tasks that are being executed"),
    "active_queues": RemoteCommand("active_queues", "queues that are consumed from"),
    "clock": RemoteCommand("clock", "logical clock"),
    "conf": RemoteCommand("conf", "settings (`yes`: with defaults)", (("with_defaults", _flag),), usage="[yes]"),
    "memdump": RemoteCommand("memdump", "statistics of memory samples", (("samples", _number),), usage="[N]"),
    "memsample": RemoteCommand("memsample", "sample memory use"),
    "objgraph": RemoteCommand(
        "objgraph", "graph of object references",
        (("type", _text), ("num", _number), ("max_depth", _number)), usage="[TYPE] [N] [DEPTH]",
    ),
    "ping": RemoteCommand("ping", "is it alive"),
    "query_task": RemoteCommand("query_task", "state of tasks by id", (), 1, "ids", "ID [ID …]"),
    "registered": RemoteCommand(
        "registered", "registered tasks [with these attributes]", (), 0, "taskinfoitems", "[ATTRIBUTE …]"
    ),
    "report": RemoteCommand("report", "versions and settings"),
    "reserved": RemoteCommand("reserved", "tasks received and waiting"),
    "revoked": RemoteCommand("revoked", "ids of revoked tasks"),
    "scheduled": RemoteCommand("scheduled", "tasks waiting for their eta"),
    "stats": RemoteCommand("stats", "statistics"),
}  # fmt: skip

CONTROL: Mapping[str, RemoteCommand] = {
    "add_consumer": RemoteCommand(
        "add_consumer", "consume from a queue, too",
        (("queue", _text), ("exchange", _text), ("exchange_type", _text), ("routing_key", _text)), 1,
        usage="QUEUE [EXCHANGE [TYPE [ROUTING_KEY]]]",
    ),
    "autoscale": RemoteCommand(
        "autoscale", "limits of the pool", (("max", _number), ("min", _number)), 2, usage="MAX MIN"
    ),
    "cancel_consumer": RemoteCommand(
        "cancel_consumer", "stop consuming from a queue", (("queue", _text),), 1, usage="QUEUE"
    ),
    "disable_events": RemoteCommand("disable_events", "stop sending events"),
    "election": RemoteCommand(
        "election", "hold an election", (("id", _text), ("topic", _text), ("action", _text)), 2,
        usage="ID TOPIC [ACTION]",
    ),
    "enable_events": RemoteCommand("enable_events", "start sending events"),
    "heartbeat": RemoteCommand("heartbeat", "send a heartbeat event now"),
    "pool_grow": RemoteCommand("pool_grow", "add processes", (("n", _number),), usage="[N]"),
    "pool_restart": RemoteCommand("pool_restart", "replace the processes"),
    "pool_shrink": RemoteCommand("pool_shrink", "remove processes", (("n", _number),), usage="[N]"),
    "rate_limit": RemoteCommand(
        "rate_limit", "limit a task: 10/m, 0 for none", (("task_name", _text), ("rate_limit", _text)), 2,
        usage="TASK RATE",
    ),
    "revoke": RemoteCommand("revoke", "never run these tasks", (), 1, "task_id", "ID [ID …]"),
    "shutdown": RemoteCommand("shutdown", "stop when running tasks are done"),
    "terminate": RemoteCommand("terminate", "revoke and kill", (("signal", _text),), 2, "task_id", "SIGNAL ID [ID …]"),
    "time_limit": RemoteCommand(
        "time_limit", "limits of a task in seconds", (("task_name", _text), ("hard", _seconds), ("soft", _seconds)), 2,
        usage="TASK HARD [SOFT]",
    ),
}  # fmt: skip


def describe(commands: Mapping[str, RemoteCommand]) -> str:
    """The commands as help text, one line each."""
    lines = [
        f"  {name} {command.usage}".rstrip().ljust(44) + command.help for name, command in commands.items()
    ]
    return "\b\nCommands:\n" + "\n".join(lines)


def unknown(name: str, commands: Mapping[str, RemoteCommand], kind: str) -> NoReturn:
    """Raise the error for a command that does not exist, with what may have been meant."""
    close = difflib.get_close_matches(name, commands, 1)
    other = CONTROL if kind == "inspect" else INSPECT
    if close:
        hint = f"Did you mean {close[0]!r}?"
    elif name in other:
        hint = f"That is a command of `qcli {'control' if kind == 'inspect' else 'inspect'}`."
    else:
        hint = f"`qcli {kind} --help` lists them all."
    raise UsageProblem(f"Command {name!r} is not recognized. {hint}")
