"""What to do about the errors of a Redis server, and of what listens in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import exceptions

from qbrokers.errors import BadBrokerURL

MIN_VERSION_TEXT = "6.2"

MAX_ARGUMENT_BYTES = 512 * 1024 * 1024
"""What a server takes as one argument (`proto-max-bulk-len`); it ends the connection on a larger one."""

_ADVICE = {
    "OOM": "the server is at its limit `maxmemory` and stores nothing until consumers have made room, or the limit is "
    "raised",
    "MISCONF": "the server stores nothing until it can write its snapshots again: look at its disk and its log",
    "NOPERM": "the user of the broker URL needs this in its access list (ACL SETUSER); README of qbrokers: which ones",
    "WRONGTYPE": "another program uses a key of this broker; keep them apart by another database or "
    "`global_keyprefix`, or delete that key",
    "NOAUTH": "the server wants a password: redis://:PASSWORD@host",
    "WRONGPASS": "check user and password in the broker URL",
}


def explained(text: str) -> str:
    """An error reply and what to do about it."""
    advice = _ADVICE.get(text.split(" ", 1)[0])
    return f"{text}; {advice}" if advice else text


def of_command(error: Exception, command: Sequence[Any]) -> Exception:
    """The error reply to a command; where the server does not name the key, this does."""
    if not str(error).startswith("WRONGTYPE") or len(command) < 2:
        return error
    key = command[1]
    return type(error)(f"{error} (key {key.decode(errors='replace') if isinstance(key, bytes) else key})")


def unopened(exc: Exception, address: str, connection: Any) -> Exception:
    """The error to raise when a connection could not be opened.

    Args:
        exc: What redis-py raised.
        address: Where to.
        connection: redis-py's connection.
    """
    text = str(exc)
    if isinstance(exc, exceptions.AuthenticationError):
        return exceptions.AuthenticationError(
            f"{address} refused the login: {_login(text)}; check user and password in the broker URL"
        )
    if isinstance(exc, exceptions.InvalidResponse):
        return exceptions.ConnectionError(
            f"{address} does not answer as a Redis server does ({text}): is it another kind of server, or one "
            "that wants TLS (rediss://)?"
        )
    if isinstance(exc, exceptions.TimeoutError | TimeoutError):
        return exceptions.TimeoutError(
            f"{address} does not answer ({text}): is it up, a Redis server, and is it right to use "
            f"{'TLS' if hasattr(connection, 'cert_reqs') else 'no TLS'}?"
        )
    if isinstance(exc, exceptions.ResponseError):
        return _refused(exc, text, address, connection)
    return exc


def _login(text: str) -> str:
    # A server asked by HELLO for a password answers with a treatise.
    return "it wants a password" if text.startswith(("HELLO must be", "NOAUTH")) else text


def _refused(exc: exceptions.ResponseError, text: str, address: str, connection: Any) -> Exception:
    if "unknown command" in text or "NOPROTO" in text:
        return exceptions.ConnectionError(
            f"{address} does not speak RESP3; Redis {MIN_VERSION_TEXT} or newer is needed"
        )
    if "DB index" in text or "SELECT" in text:
        return BadBrokerURL(
            f"{address} has no database {connection.db} ({text}); the path of the broker URL is its number, and the "
            "server's setting `databases` says how many there are"
        )
    if "Client names" in text:
        return BadBrokerURL(f"transport option client_name is refused: {text}")
    return type(exc)(explained(text))


def refuse_giants(commands: Sequence[Sequence[Any]]) -> None:
    """Make sure that the server takes every argument of some commands.

    Raises:
        redis.exceptions.DataError: One is too large; nothing was sent.
    """
    for command in commands:
        for argument in command:
            if isinstance(argument, bytes | str) and len(argument) > MAX_ARGUMENT_BYTES:
                raise exceptions.DataError(
                    f"a message of {len(argument)} bytes is larger than Redis takes ({MAX_ARGUMENT_BYTES}); "
                    "nothing was sent. Put large data elsewhere, and its address into the message"
                )
