"""How results are printed: text for people, JSON for scripts."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click


class Output:
    """Prints; news goes to stderr when the result is for scripts.

    Args:
        color: True or False decides; None leaves it to the terminal and the variable `NO_COLOR`.
        quiet: print results only.
    """

    def __init__(self, *, color: bool | None = None, quiet: bool = False) -> None:
        self.quiet = quiet
        self.color = _terminal_colors() if color is None else color

    def style(self, text: str, **style: Any) -> str:
        """`text` with a `click` style, where colours are on."""
        return click.style(text, **style) if self.color else text

    def print(self, text: str = "", *, err: bool = False) -> None:
        """One line of a result."""
        click.echo(text, err=err, color=self.color)

    def say(self, text: str = "") -> None:
        """News; not printed when quiet."""
        if not self.quiet:
            click.echo(text, color=self.color)

    def warn(self, text: str) -> None:
        """A warning on stderr."""
        click.echo(self.style(text, fg="yellow"), err=True, color=self.color)

    def json(self, value: Any) -> None:
        """One JSON document."""
        click.echo(json.dumps(value, default=_plain, ensure_ascii=False, sort_keys=False))

    def reply(self, node: str, answer: Any, *, show_body: bool = True) -> None:
        """One node's answer to a remote command."""
        ok = not (isinstance(answer, dict) and "error" in answer)
        status = self.style("OK", fg="green", bold=True) if ok else self.style("ERROR", fg="red", bold=True)
        self.say(f"->  {self.style(node, fg='cyan')}: {status}")
        if show_body and (body := _body(answer)):
            for line in body.splitlines():
                self.print(f"        {line}")


def _body(answer: Any) -> str:
    if isinstance(answer, dict) and set(answer) <= {"ok", "error"}:
        answer = answer.get("error") or answer.get("ok")
    if answer is None:
        return ""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, (list, tuple)):
        if not answer:
            return "- empty -"
        return "\n".join(
            f"* {item if isinstance(item, str) else json.dumps(item, default=_plain)}" for item in answer
        )
    return json.dumps(answer, indent=4, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def _terminal_colors() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
