"""What one setting is: its name, what values it takes, its default."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta, tzinfo
from os import PathLike
from typing import Any

import attrs

from qcore.errors import ImproperlyConfigured
from qcore.times import get_zone, parse_rate

_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE = frozenset({"0", "false", "no", "off", "n", "f", ""})


class _Refused(Exception):
    """The value does not fit its kind."""


@attrs.frozen
class Kind:
    """A family of values.

    Attributes:
        label: how error texts call it.
        normalize: the value as it is kept, or raises `_Refused`.
        parse: the value that text from an environment variable or the command line stands for.
    """

    label: str
    normalize: Callable[[Any], Any]
    parse: Callable[[str], Any]


def _instance(*types: type) -> Callable[[Any], Any]:
    def normalize(value: Any) -> Any:
        if isinstance(value, types) and (bool in types or not isinstance(value, bool)):
            return value
        raise _Refused

    return normalize


def _bool(value: Any) -> bool:
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise _Refused


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise _Refused


def _parse_number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError as exc:
            raise _Refused from exc


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError as exc:
        raise _Refused from exc


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise _Refused from exc


def _list(value: Any) -> Any:
    # A lone text is what `("json")` without its comma gives; iterating its letters helps nobody.
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    raise _Refused


def _parse_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _url(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(url, str) for url in value):
        return value
    raise _Refused


def _callable_or_name(value: Any) -> Any:
    if isinstance(value, str) or callable(value):
        return value
    raise _Refused


def _store(value: Any) -> Any:
    if isinstance(value, (bool, int, float, bytes, list, tuple, set, Mapping)):
        raise _Refused
    return value


def _rate(value: Any) -> Any:
    try:
        parse_rate(value)
    except ValueError as exc:
        raise ImproperlyConfigured(str(exc)) from exc
    return value


def _zone(value: Any) -> Any:
    if not isinstance(value, (str, tzinfo)):
        raise _Refused
    get_zone(value)
    return value


def _same(text: str) -> str:
    return text


BOOL = Kind("true or false", _bool, _parse_bool)
INT = Kind("a whole number", _instance(int), _parse_int)
NUMBER = Kind("a number", _instance(int, float), _parse_number)
SECONDS = Kind("a number of seconds or a timedelta", _instance(int, float, timedelta), _parse_number)
TEXT = Kind("text", _instance(str), _same)
SECRET = Kind("text or bytes", _instance(str, bytes), _same)
PATH = Kind("a path", _instance(str, PathLike), _same)
LIST = Kind("a list, tuple or set", _list, _parse_list)
DICT = Kind("a mapping", _instance(Mapping), _parse_json)
URL = Kind("a URL, or a list of URLs to fail over between", _url, _same)
FACTORY = Kind("a callable or its dotted name", _callable_or_name, _same)
STORE = Kind("a URL, a result store or its class", _store, _same)
SSL = Kind("true, false or a mapping of TLS options", _instance(bool, Mapping), _parse_json)
MODE = Kind("a number or a name", _instance(int, str), lambda text: int(text) if text.isdigit() else text)
RATE = Kind("a rate such as '10/m'", _rate, _same)
ZONE = Kind("the name of a time zone, or a tzinfo", _zone, _same)
ANY = Kind("anything", lambda value: value, _parse_json)


@attrs.frozen
class Option:
    """One setting.

    Attributes:
        name: as in `app.conf.<name>`.
        kind: what values it takes.
        default: its value when nobody sets it; copied when it is a container.
        help: one phrase for the reference and for `qcli`.
        choices: the only values it takes, when given.
        minimum: the smallest number it takes, when given.
        nullable: whether None is a value; always so when None is the default.
    """

    name: str
    kind: Kind
    default: Any = None
    help: str = ""
    choices: tuple[object, ...] = ()
    minimum: float | None = None
    nullable: bool = False

    def fresh_default(self) -> Any:
        """The default, safe to be changed in place."""
        default = self.default
        return type(default)(default) if isinstance(default, (dict, list)) else default

    def check(self, value: object) -> Any:
        """`value` as it is kept.

        Raises:
            ImproperlyConfigured: it has the wrong type, is too small or is none of the choices.
        """
        if value is None and (self.nullable or self.default is None):
            return None
        try:
            kept = self.kind.normalize(value)
        except _Refused as exc:
            raise ImproperlyConfigured(self._refusal(value)) from exc
        except ImproperlyConfigured as exc:
            raise ImproperlyConfigured(f"setting {self.name}: {exc}") from exc
        if self.choices and kept not in self.choices:
            raise ImproperlyConfigured(self._refusal(value))
        if self.minimum is not None and isinstance(kept, (int, float)) and kept < self.minimum:
            raise ImproperlyConfigured(
                f"setting {self.name} must be at least {self.minimum:g}, not {value!r}"
            )
        return kept

    def parse(self, text: str) -> Any:
        """The value that `text` from the environment or the command line stands for.

        Raises:
            ImproperlyConfigured: the text makes no sense for this setting.
        """
        if text.strip().lower() in ("none", "null") and (self.nullable or self.default is None):
            return None
        try:
            value = self.kind.parse(text)
        except _Refused as exc:
            raise ImproperlyConfigured(self._refusal(text)) from exc
        return self.check(value)

    def _refusal(self, value: object) -> str:
        wanted = " or ".join(map(repr, self.choices)) if self.choices else self.kind.label
        # A value may be a secret, so only the type of text in secret places is shown.
        shown = f"{type(value).__name__}" if self.kind is SECRET else f"{type(value).__name__} {value!r}"
        return f"setting {self.name} must be {wanted}, not {shown}"
