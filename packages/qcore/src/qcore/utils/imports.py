"""Importing by name: symbols, modules from the working directory, and where an import broke."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from qcore.errors import ImproperlyConfigured


@contextmanager
def cwd_in_path() -> Iterator[None]:
    """Make the working directory importable for a while, before everything else."""
    cwd = os.getcwd()
    if cwd in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, cwd)
    try:
        yield
    finally:
        try:
            sys.path.remove(cwd)
        except ValueError:
            pass


def import_module(name: str) -> ModuleType:
    """Import module `name`, which may lie in the working directory."""
    with cwd_in_path():
        return importlib.import_module(name)


def module_exists(name: str) -> bool:
    """Whether a module called `name` can be found; its parents are imported, it is not."""
    if name in sys.modules:
        return True
    with cwd_in_path():
        try:
            return importlib.util.find_spec(name) is not None
        except ModuleNotFoundError as exc:
            if is_missing(exc, name):
                return False
            raise
        except ValueError:
            return False


def is_missing(exc: BaseException, name: str) -> bool:
    """Whether `exc` says that module `name`, or a package that holds it, does not exist.

    A module that exists and itself imports something missing is broken, not missing.
    """
    missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
    return missing is not None and (name == missing or name.startswith(f"{missing}."))


def import_symbol(name: str) -> object:
    """The object called `module:attribute`, `module:a.b`, `module.attribute` or just `module`.

    Raises:
        ImportError: there is no such module, or importing it failed.
        AttributeError: the module has no such attribute.
    """
    module_name, colon, path = name.partition(":")
    if not module_name:
        raise ImportError(f"not a dotted name: {name!r}")
    if colon:
        found: object = import_module(module_name)
        for part in filter(None, path.split(".")):
            found = getattr(found, part)
        return found
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        parent, dot, attribute = name.rpartition(".")
        if not dot or not is_missing(exc, name):
            raise
        return getattr(import_symbol(parent), attribute)


def symbol_by_name(name: object) -> object:
    """`name` itself unless it is text; then the object that it names.

    Raises:
        ImproperlyConfigured: there is no such object; the text says what was looked for.
    """
    if not isinstance(name, str):
        return name
    try:
        return import_symbol(name)
    except ImportError as exc:
        raise ImproperlyConfigured(f"cannot import {name!r}: {where_it_broke(exc)}") from exc
    except AttributeError as exc:
        raise ImproperlyConfigured(f"cannot find {name!r}: {exc}") from exc


def where_it_broke(exc: BaseException) -> str:
    """Kind, text, file and line of an error raised while a module was imported."""
    text = f"{type(exc).__name__}: {exc}"
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{type(exc).__name__}: {exc.msg} ({exc.filename}, line {exc.lineno})"
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if "importlib" not in frame.filename]
    outside = [frame for frame in frames if frame.filename != __file__]
    if not outside:
        return text
    return f"{text} ({outside[-1].filename}, line {outside[-1].lineno})"


def trimmed_traceback(exc: BaseException, *importers: str) -> str:
    """The traceback of an error raised while a module was imported, without the frames of importing.

    Args:
        exc: the error.
        importers: files whose frames are left out as well.
    """
    skipped = {__file__, *importers}
    shown = traceback.TracebackException.from_exception(exc)
    shown.stack = traceback.StackSummary.from_list(
        [
            frame
            for frame in shown.stack
            if "importlib" not in frame.filename and frame.filename not in skipped
        ]
    )
    return "".join(shown.format(chain=True)).rstrip()


def qualified_name(obj: object) -> str:
    """`module.qualname` of a class, function or instance's class."""
    named = obj if hasattr(obj, "__qualname__") else type(obj)
    return f"{named.__module__}.{named.__qualname__}"
