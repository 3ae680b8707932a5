"""The Lua scripts of the Redis transport: source and digest, read once per process."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files

from attrs import frozen


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
