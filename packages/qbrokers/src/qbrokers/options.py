"""Reading `transport_options`: every value is checked, and an error names the option and says what it takes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from math import inf, isfinite
from typing import Any, TypeVar

from attrs import fields, frozen

from qbrokers.errors import BadBrokerURL

T = TypeVar("T")

_KIND = "kind"
_NEAR = 0.88
"""Names that are more alike than this are the same, misspelt."""

# Of kombu's own transports: near to one of ours, and right.
_OF_OTHERS = frozenset({"unacked_mutex_key", "socket_read_timeout"})

_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@frozen
class Kind:
    """What an option may be.

    Attributes:
        wanted: Completes "must be …".
        read: Gives the value as it is used.

    Raises:
        TypeError, ValueError: By `read`, when the value is of no use.
    """

    wanted: str
    read: Callable[[Any], Any]


Checked = dict[str, Kind]
"""Metadata of a field: what it may be."""


def checked(wanted: str, read: Callable[[Any], Any]) -> Checked:
    """Metadata for `attrs.field`, see `Kind`."""
    return {_KIND: Kind(wanted, read)}


def number(wanted: str, low: float = -inf, high: float = inf, *, whole: bool = False) -> Checked:
    """A number from `low` to `high`, or its text."""

    def read(value: Any) -> float | int:
        if isinstance(value, bool):
            raise TypeError
        found = float(value)
        if not isfinite(found) or not low <= found <= high or (whole and found != int(found)):
            raise ValueError
        return int(found) if whole else found

    return checked(wanted, read)


SECONDS = number("a number of seconds above 0", low=1e-6)
SECONDS_OR_0 = number("a number of seconds, 0 or more", low=0)


def _flag(value: Any) -> bool:
    if isinstance(value, str):
        found = _WORDS.get(value.lower())
        if found is None:
            raise ValueError
        return found
    if value not in (0, 1):
        raise ValueError
    return bool(value)


FLAG = checked("true or false", _flag)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


TEXT = checked("text", _text)


def _some_text(value: Any) -> str:
    if not _text(value):
        raise ValueError
    return str(value)


SOME_TEXT = checked("text that is not empty", _some_text)


def choice(*allowed: Any) -> Checked:
    """One of some values, or its text."""

    def read(value: Any) -> Any:
        for each in allowed:
            if not isinstance(value, bool) and value in (each, str(each)):
                return each
        raise ValueError

    return checked(f"one of {', '.join(str(each) for each in allowed)}", read)


def taken(cls: type[T], given: Mapping[str, Any]) -> T:
    """The options of a class whose fields are `Checked`; those of others are left alone. None is the default.

    Raises:
        BadBrokerURL: A value is of no use, or a name looks like one of ours, misspelt.
    """
    kinds: dict[str, Kind] = {each.name: each.metadata[_KIND] for each in fields(cls)}  # type: ignore[arg-type]
    refuse_misspelt(given, kinds)
    return cls(
        **{name: _read(name, kinds[name], given[name]) for name in kinds if given.get(name) is not None}
    )


def _read(name: str, kind: Kind, value: Any) -> Any:
    try:
        return kind.read(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise BadBrokerURL(f"transport option {name} must be {kind.wanted}, not {value!r}") from exc


def refuse_misspelt(given: Mapping[str, Any], known: Collection[str]) -> None:
    """Make sure that no name is almost one of ours.

    Names that resemble none may be of another transport, of a second URL, or of kombu itself.

    Raises:
        BadBrokerURL: It says which one may be meant.
    """
    for name in given:
        if name not in known and name not in _OF_OTHERS and isinstance(name, str):
            close = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
            if close:
                raise BadBrokerURL(f"unknown transport option {name!r}; did you mean {close[0]}?")
