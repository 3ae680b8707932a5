"""Node names (`name@host`) and the variables in them and in file paths.

| | in `--hostname` | in file paths |
|---|---|---|
| `%p` | | full node name |
| `%h` | host name with domain | the part behind `@` |
| `%n` | host name without domain | the part before `@` |
| `%d` | domain | domain |
| `%i` | stays, for the pool process | index of the pool process, 0 in the main one |
| `%I` | stays, for the pool process | `-` and the index, nothing in the main one |
| `%%` | `%` | `%` |
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from functools import lru_cache

SEPARATOR = "@"
DEFAULT_NAME = "q"
_VARIABLE = re.compile(r"%(.)")


@lru_cache(maxsize=1)
def gethostname() -> str:
    """Name of this machine, as its own system knows it."""
    return socket.gethostname()


def make_nodename(name: str, host: str) -> str:
    """`name@host`."""
    return f"{name}{SEPARATOR}{host}"


def split_nodename(nodename: str) -> tuple[str | None, str]:
    """Name and host; the name is None when there is no `@`."""
    name, separator, host = nodename.partition(SEPARATOR)
    return (name, host) if separator else (None, nodename)


def default_nodename(nodename: str | None = None, name: str = DEFAULT_NAME) -> str:
    """`nodename` completed: a missing name part is `name`, a missing host this machine."""
    given, host = split_nodename(nodename or "")
    return make_nodename(given or name, host or gethostname())


def anonymous_nodename(pid: int, host: str | None = None) -> str:
    """How a client without a node name appears in events."""
    return make_nodename(f"gen{pid}", host or gethostname())


def expand_nodename(template: str, name: str = DEFAULT_NAME) -> str:
    """The node name that `--hostname template` asks for: `worker1@%h` -> `worker1@george.example.com`."""
    host = gethostname()
    short, _, domain = host.partition(".")
    expanded = _expand(template, {"h": host, "n": short or name, "d": domain})
    return default_nodename(expanded, name)


def expand_path(template: str, nodename: str, index: int | None = None) -> str:
    """The file that `template` means for `nodename`.

    Args:
        template: path with variables, such as `/var/log/%n%I.log`.
        nodename: full node name.
        index: of the pool process; 0 in the main process; None keeps `%i` and `%I` for later.
    """
    name, host = split_nodename(nodename)
    variables = {
        "p": nodename,
        "h": host,
        "n": name if name is not None else host.partition(".")[0],
        "d": host.partition(".")[2],
    }
    if index is not None:
        variables["i"] = str(index)
        variables["I"] = f"-{index}" if index else ""
    return _expand(template, variables)


def _expand(template: str, variables: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] == "%":
            # Kept doubled while a later expansion is still to come.
            return "%%" if "i" not in variables and "p" in variables else "%"
        return variables.get(match[1], match[0])

    return _VARIABLE.sub(replace, template)
