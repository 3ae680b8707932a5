"""The Lua scripts of the Redis transport: source and digest, read once per process, and how one is run."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Protocol

from attrs import frozen
from redis import exceptions


class Caller(Protocol):
    """What running a script needs of a connection."""

    def call(self, *command: Any) -> Any:
        """Send one command and return its reply; that of an error is raised."""


@frozen
class Script:
    """A script as the server knows it.

    Attributes:
        source: Lua text.
        sha: SHA-1 digest, the name under which `EVALSHA` runs it.
    """

    source: bytes
    sha: bytes


def _load(name: str) -> Script:
    source = files(__package__).joinpath("lua", f"{name}.lua").read_bytes()
    return Script(source, sha1(source, usedforsecurity=False).hexdigest().encode())


CLAIM = _load("claim")
SETTLE = _load("settle")
RENEW = _load("renew")
BIND = _load("bind")

ALL = (CLAIM, SETTLE, RENEW, BIND)


def run(link: Caller, script: Script, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
    """Run a script, loading it when the server does not know it; returns its reply."""
    command = (b"EVALSHA", script.sha, len(keys), *keys, *arguments)
    try:
        return link.call(*command)
    except exceptions.ResponseError as exc:
        if not str(exc).startswith("NOSCRIPT"):
            raise
    link.call(b"SCRIPT", b"LOAD", script.source)
    return link.call(*command)
