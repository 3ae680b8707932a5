"""Unique ids."""

from __future__ import annotations

import os
from uuid import UUID

_VARIANT = "89ab"


def uuid() -> str:
    """A random UUID (version 4) as text; same as `str(uuid4())` in a third of the time."""
    digits = os.urandom(16).hex()
    variant = _VARIANT[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID."""
    try:
        UUID(text)
    except (ValueError, AttributeError, TypeError):
        return False
    return True
