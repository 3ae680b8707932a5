"""Telling what a misspelt setting name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .old_names import OLD_NAMES
from .table import OPTIONS, REMOVED

_PREFIXES = frozenset(name.partition("_")[0] for name in OPTIONS if "_" in name)


def suggestion(name: str, known: Iterable[str] = OPTIONS) -> str | None:
    """The setting that `name` most likely means, None when nothing is near."""
    if name in OLD_NAMES:
        return OLD_NAMES[name]
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.75)
    return near[0] if near else None


def explain_unknown(name: str, known: Iterable[str] = OPTIONS, where: str = "") -> str:
    """The error text for a name that is no setting."""
    text = f"unknown setting {name!r}{where}"
    if name in REMOVED:
        return f"{text}: it was removed, {REMOVED[name]}"
    near = suggestion(name, known)
    if name in OLD_NAMES:
        return f"{text}: the upper-case names are gone, write {near!r}"
    if near is not None:
        return f"{text}: did you mean {near!r}?"
    return f"{text}: the reference lists all settings, and `app.add_defaults` adds new ones"


def looks_like_setting(name: str, value: object) -> bool:
    """Whether a name found in a configuration module, and unknown, is a mistake rather than a helper.

    A module may hold imports, functions and variables of its own; only names in the shape of a setting, with
    a plain value, are taken for misspelt ones.
    """
    if name in OLD_NAMES or name in REMOVED:
        return True
    if name.startswith("_") or not isinstance(
        value, (str, bytes, int, float, list, tuple, set, dict, type(None))
    ):
        return False
    if name.isupper():
        return False
    if name.partition("_")[0] in _PREFIXES:
        return bool(difflib.get_close_matches(name, list(OPTIONS), n=1, cutoff=0.75))
    return bool(difflib.get_close_matches(name, list(OPTIONS), n=1, cutoff=0.88))


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `known` that is spelt most like `name`, None when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return near[0] if near else None
