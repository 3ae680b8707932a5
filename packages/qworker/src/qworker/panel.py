"""The panel of remote control commands: a function becomes one by its decorator, when its module is imported.

```python
@control_command(args=[("n", int)], signature="[N=1]")
def increase_prefetch_count(state, n=1):
    state.consumer.qos.increment_eventually(n)
    return {"ok": "prefetch count incremented"}
```

A command gets the `ControlState` and keyword arguments, and returns what is sent back. What it raises is sent back as
`{"error": repr(exc)}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from attrs import frozen

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

Handler = Callable[..., Any]
F = TypeVar("F", bound=Handler)


@frozen
class ControlState:
    """What commands work on."""

    app: Any
    hostname: str
    consumer: Consumer


@frozen
class Command:
    """One command of the panel.

    Attributes:
        type: `control` (has side effects) or `inspect` (has none).
        args: `(name, type)` of the arguments on the command line, in order.
        variadic: Name of the argument that takes all the remaining ones.
        signature: Form of the arguments, for the help text.
        help: One line for the help text.
        default_timeout: Seconds that a client waits for replies.
        visible: Listed in the help.
        alias: A second name.
    """

    name: str
    type: str
    handler: Handler
    alias: str | None = None
    visible: bool = True
    default_timeout: float = 1.0
    help: str | None = None
    signature: str | None = None
    args: Sequence[tuple[str, Callable[[str], Any]]] = ()
    variadic: str | None = None


class Panel(Mapping[str, Handler]):
    """Name -> handler; what pidbox takes for its handlers."""

    def __init__(self) -> None:
        self.commands: dict[str, Command] = {}
        self._handlers: dict[str, Handler] = {}

    def register(self, command: Command) -> None:
        """Add a command; one of the same name is replaced."""
        self.commands[command.name] = command
        self._handlers[command.name] = command.handler
        if command.alias:
            self._handlers[command.alias] = command.handler

    def of_type(self, type: str) -> list[Command]:
        """Visible commands of one type, by name."""
        found = (command for command in self.commands.values() if command.type == type and command.visible)
        return sorted(found, key=lambda command: command.name)

    def __getitem__(self, name: str) -> Handler:
        return self._handlers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)


# Decorators in user modules run at import time, before there is a worker: the panel has to be found without one.
panel = Panel()


@overload
def control_command(function: F) -> F: ...


@overload
def control_command(function: None = None, **options: Any) -> Callable[[F], F]: ...


def control_command(function: F | None = None, **options: Any) -> F | Callable[[F], F]:
    """Make a function a command with side effects. For `options` see `Command`."""
    return _command("control", function, options)


@overload
def inspect_command(function: F) -> F: ...


@overload
def inspect_command(function: None = None, **options: Any) -> Callable[[F], F]: ...


def inspect_command(function: F | None = None, **options: Any) -> F | Callable[[F], F]:
    """Make a function a command without side effects. For `options` see `Command`."""
    return _command("inspect", function, options)


def _command(type: str, function: F | None, options: dict[str, Any]) -> F | Callable[[F], F]:
    def decorate(handler: F) -> F:
        name = options.get("name") or handler.__name__
        help_text = options.get("help") or (handler.__doc__ or "").strip().split("\n", 1)[0]
        fields = {**options, "name": name, "help": help_text or None}
        panel.register(Command(type=type, handler=handler, **fields))
        return handler

    return decorate if function is None else decorate(function)
