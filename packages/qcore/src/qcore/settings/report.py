"""Showing settings without their secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qcore.utils.text import mask_url

MASK = "********"
_SECRET_NAME = re.compile("API|TOKEN|KEY|SECRET|PASS|SIGNATURE|DATABASE|CREDENTIAL", re.IGNORECASE)


def is_secret(name: object) -> bool:
    """Whether the value of a setting or key called `name` is hidden."""
    return isinstance(name, str) and _SECRET_NAME.search(name) is not None


def censor(name: object, value: object) -> object:
    """`value` fit to be shown: secrets are masked, also inside of containers and URLs."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {key: censor(key, item) for key, item in value.items()}
    if is_secret(name):
        return MASK
    if isinstance(value, str):
        return mask_url(value) if "://" in value else value
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(censor(None, item) for item in value)
    return value


def humanize(values: Mapping[str, object]) -> str:
    """One `name: value` line per setting, sorted by name."""
    return "\n".join(f"{name}: {values[name]!r}" for name in sorted(values))
