"""Exceptions on the wire (W15-08) and back again."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from qcore.errors import from_wire_origin, wire_origin


class RemoteError(Exception):
    """Base of the stand-ins for exception classes that do not exist here."""


def to_wire(exc: BaseException, encodable: Callable[[Any], bool]) -> dict[str, Any]:
    """The object that stands for `exc`; never raises, whatever the exception does.

    Args:
        exc: any exception, also one whose `args` or `repr` fail.
        encodable: tells whether a value can be serialized; others travel as their repr.
    """
    module, name = wire_origin(type(exc))
    try:
        args = list(exc.args)
    except Exception:  # noqa: BLE001 - foreign code; the message is taken instead
        args = [safe_text(exc)]
    if not encodable(args):
        args = [value if encodable(value) else safe_repr(value) for value in args]
    return {"exc_type": name, "exc_message": args, "exc_module": module}


def from_wire(value: Any) -> BaseException:
    """The exception that `value` stands for: of its own class when that can be found, else of one of the same name."""
    if isinstance(value, BaseException):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("exc_type"), str):
        return RemoteError(value)
    module, name = value.get("exc_module"), value["exc_type"]
    args = value.get("exc_message", ())
    args = tuple(args) if isinstance(args, (list, tuple)) else (args,)
    cls = find_class(module, name) or stand_in(str(module), name)
    return _build(cls, args) or _build(stand_in(str(module), name), args) or RemoteError(*args)


def find_class(module: str | None, name: str) -> type[BaseException] | None:
    """The exception class of that module and qualified name.

    A module is imported only when its top package is loaded already, so that what lies in the store cannot make
    this process load anything new of its choice.
    """
    ours = from_wire_origin(module, name)
    if ours is not None or not module:
        return ours
    found: Any = sys.modules.get(module)
    if found is None and module.partition(".")[0] in sys.modules:
        try:
            found = importlib.import_module(module)
        except Exception:  # noqa: BLE001 - foreign code; a stand-in is used
            return None
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


@lru_cache(maxsize=1024)
def stand_in(module: str, name: str) -> type[BaseException]:
    """A class that shows the foreign one's name; the same one for the same name."""
    return type(name.rpartition(".")[2] or "RemoteError", (RemoteError,), {"__module__": module})


def _build(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException | None:
    try:
        exc = cls(*args)
        if isinstance(exc, BaseException):
            return exc
    except Exception:  # noqa: BLE001 - foreign constructor; next its parts are put together without it
        pass
    try:
        exc = cls.__new__(cls, *args)
        exc.args = args
        return exc if isinstance(exc, BaseException) else None
    except Exception:  # noqa: BLE001 - foreign code; the caller takes a stand-in
        return None


def safe_repr(value: Any, limit: int = 4096) -> str:
    """`repr`, cut to `limit` characters; an object whose repr fails shows its type."""
    try:
        return repr(value)[:limit]
    except Exception:  # noqa: BLE001 - foreign code; only a text gets poorer
        return f"<unprintable {type(value).__name__} object>"


def safe_text(value: Any, limit: int = 4096) -> str:
    """`str`, as careful as `safe_repr`."""
    try:
        return str(value)[:limit]
    except Exception:  # noqa: BLE001 - foreign code; only a text gets poorer
        return safe_repr(value, limit)
