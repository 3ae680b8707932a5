"""Reading configuration from modules, objects, mappings, the environment and the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import ModuleType

import attrs

from qcore.errors import ImproperlyConfigured
from qcore.utils.imports import import_symbol, is_missing, where_it_broke

from .names import explain_unknown, looks_like_setting
from .old_names import OLD_NAMES
from .option import Option

ENVIRONMENT: Mapping[str, str] = {
    "Q_BROKER_URL": "broker_url",
    "Q_BROKER_READ_URL": "broker_read_url",
    "Q_BROKER_WRITE_URL": "broker_write_url",
    "Q_RESULT_BACKEND": "result_backend",
}
"""Environment variables that set a setting."""


@attrs.frozen
class Source:
    """Where configuration comes from, not read yet.

    Attributes:
        origin: module, object, mapping, class, or the name of one.
        namespace: prefix of the names in it: `Q` reads `Q_TASK_SERIALIZER` as `task_serializer`.
        silent: a named module that does not exist is no error.
    """

    origin: object
    namespace: str = ""
    silent: bool = False

    def read(self, options: Mapping[str, Option]) -> dict[str, object]:
        """Checked values of the settings found.

        Raises:
            ImproperlyConfigured: it cannot be imported, or a name or value in it is wrong.
        """
        origin = self._resolve()
        if origin is None:
            return {}
        label = self.label
        items = _items(origin)
        named = self._strip(items, options) if self.namespace else _plain(items, options, origin)
        values: dict[str, object] = {}
        for written, (name, value) in named.items():
            if name not in options:
                raise ImproperlyConfigured(self._unknown(written, name, options, label))
            try:
                values[name] = options[name].check(value)
            except ImproperlyConfigured as exc:
                raise ImproperlyConfigured(f"{exc} (in {label})") from exc
        return values

    @property
    def label(self) -> str:
        """How texts call it."""
        if isinstance(self.origin, str):
            return self.origin
        if isinstance(self.origin, ModuleType):
            return self.origin.__name__
        return getattr(self.origin, "__qualname__", None) or type(self.origin).__name__

    def _resolve(self) -> object:
        if not isinstance(self.origin, str):
            return self.origin
        try:
            return import_symbol(self.origin)
        except ImportError as exc:
            if not is_missing(exc, self.origin.partition(":")[0]):
                raise self._broken(exc) from exc
            if self.silent:
                return None
            raise ImproperlyConfigured(
                f"configuration {self.origin!r} not found: {exc}; it must be importable from the working "
                f"directory {os.getcwd()!r} or from PYTHONPATH"
            ) from exc
        except AttributeError as exc:
            raise ImproperlyConfigured(f"configuration {self.origin!r} not found: {exc}") from exc
        except Exception as exc:
            # Foreign code runs on import; whatever it raises, the operator needs file and line.
            raise self._broken(exc) from exc

    def _broken(self, exc: BaseException) -> ImproperlyConfigured:
        return ImproperlyConfigured(f"configuration {self.origin!r} cannot be loaded: {where_it_broke(exc)}")

    def _strip(
        self, items: Mapping[str, object], options: Mapping[str, Option]
    ) -> dict[str, tuple[str, object]]:
        prefix = self.namespace if self.namespace.endswith("_") else f"{self.namespace}_"
        return {
            name: (name[len(prefix) :].lower(), value)
            for name, value in items.items()
            if name.startswith((prefix, prefix.lower()))
        }

    def _unknown(self, written: str, name: str, options: Mapping[str, Option], label: str) -> str:
        if self.namespace and written in OLD_NAMES:
            new = f"{self.namespace.rstrip('_')}_{OLD_NAMES[written]}".upper()
            return f"unknown setting {written!r} in {label}: the old name is not used any more, write {new!r}"
        where = f" ({written} in {label})" if written != name else f" in {label}"
        return explain_unknown(name, options, where)


def _items(origin: object) -> dict[str, object]:
    if isinstance(origin, Mapping):
        return {str(name): value for name, value in origin.items()}
    return {name: getattr(origin, name) for name in dir(origin) if not name.startswith("_")}


def _plain(
    items: Mapping[str, object], options: Mapping[str, Option], origin: object
) -> dict[str, tuple[str, object]]:
    # Every key of a mapping was meant as a setting; a module or class holds other names as well.
    strict = isinstance(origin, Mapping)
    return {
        name: (name, value)
        for name, value in items.items()
        if strict or name in options or looks_like_setting(name, value)
    }


def read_environment(options: Mapping[str, Option], environ: Mapping[str, str]) -> dict[str, object]:
    """Settings given by environment variables of their own; empty ones count as unset."""
    return {
        name: options[name].parse(environ[variable])
        for variable, name in ENVIRONMENT.items()
        if environ.get(variable)
    }


def read_arguments(
    arguments: Iterable[str], options: Mapping[str, Option], namespace: str = "worker"
) -> dict[str, object]:
    """Settings from `name=value` arguments: `task.acks_late=1`, `task_acks_late=1`, `.concurrency=4`.

    A leading dot or no known name stands for `namespace`.

    Raises:
        ImproperlyConfigured: an argument has another form, or its name or value is wrong.
    """
    values: dict[str, object] = {}
    for argument in arguments:
        written, equals, text = argument.partition("=")
        if not equals or not written:
            raise ImproperlyConfigured(f"{argument!r} is not of the form name=value")
        name = written.strip().replace(".", "_").lower().lstrip("_")
        if written.startswith(".") or (name not in options and f"{namespace}_{name}" in options):
            name = f"{namespace}_{name}"
        if name not in options:
            raise ImproperlyConfigured(explain_unknown(name, options, f" in {argument!r}"))
        values[name] = options[name].parse(text.strip())
    return values
