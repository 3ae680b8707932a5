"""`app.conf`: settings as attributes and as a mapping, read on first use.

Layers, the first that has a value wins:

1. assignments made after the configuration was read
2. environment: `Q_BROKER_URL`, `Q_BROKER_READ_URL`, `Q_BROKER_WRITE_URL`, `Q_RESULT_BACKEND`, so that whoever
   starts a program has the last word about where it connects
3. assignments made before: `app.conf.x = ...`, `app.conf.update(...)`
4. keywords of the app: `App(broker=..., backend=..., include=...)`
5. the configuration source: `config_from_object`, else `Q_CONFIG_MODULE`, else the module `qconfig`
   if there is one
6. further defaults: `app.add_defaults(...)`
7. the defaults of the option table

Nothing is read before a value is asked for. From then on each value lies in the instance's `__dict__`, so
reading an attribute costs what it costs on any object.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from qcore.errors import ImproperlyConfigured
from qcore.utils.imports import module_exists

from . import report
from .names import explain_unknown
from .option import ANY, Option
from .sources import Source, read_arguments, read_environment
from .table import OPTIONS

CONFIG_MODULE_VARIABLE = "Q_CONFIG_MODULE"
DEFAULT_MODULE = "qconfig"


class Settings(Mapping[str, Any]):
    """The settings of one app.

    Args:
        keywords: settings given to the app's constructor; None means not given.
        default_module: module to read when no source is named and it exists; None reads none.
        environ: environment variables to look at.
        on_configure: called once, just before the configuration is read.
        on_after_configure: called once, after it was read.
    """

    def __init__(
        self,
        keywords: Mapping[str, object] | None = None,
        *,
        default_module: str | None = DEFAULT_MODULE,
        environ: Mapping[str, str] | None = None,
        on_configure: Callable[[], object] | None = None,
        on_after_configure: Callable[[], object] | None = None,
    ) -> None:
        self.__dict__.update(
            _options=OPTIONS,
            _source=None,
            _default_module=default_module,
            _environ=os.environ if environ is None else environ,
            _keywords={},
            _defaults=[],
            _assigned={},
            _explicit=frozenset(),
            _read_before=False,
            _loaded=False,
            _loading=False,
            _lock=threading.RLock(),
            _on_configure=on_configure,
            _on_after_configure=on_after_configure,
            version=0,
        )
        given = {name: value for name, value in (keywords or {}).items() if value is not None}
        self._keywords.update(self._checked(given))

    # --- reading ----------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Only called for what is not in __dict__: an unread configuration, or no setting at all.
        if name.startswith("__") or not self._knows(name):
            raise AttributeError(explain_unknown(name, self._options))
        if not self._loaded:
            if self._loading:
                return self._provisional(name)
            self.load()
        return self.__dict__[name]

    def __getitem__(self, name: str) -> Any:
        if not self._knows(name):
            raise KeyError(explain_unknown(name, self._options))
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        self.load()
        return iter(self._options)

    def __len__(self) -> int:
        self.load()
        return len(self._options)

    def __contains__(self, name: object) -> bool:
        return self._knows(name)

    def first(self, *names: str) -> Any:
        """The first value among `names` that is not None."""
        return next((value for name in names if (value := self[name]) is not None), None)

    def get_by_parts(self, *parts: str) -> Any:
        """The setting whose name is `parts` joined by underscores: `get_by_parts("task", "acks_late")`."""
        return self["_".join(part for part in parts if part)]

    def find_option(self, name: str, namespace: str = "") -> Option:
        """The option called `name`, or `namespace_name`, or the only one that ends so.

        Raises:
            KeyError: there is no such option.
        """
        options: Mapping[str, Option] = self._options
        for candidate in (f"{namespace}_{name}" if namespace else name, name):
            if candidate in options:
                return options[candidate]
        endings = [option for key, option in options.items() if key.endswith(f"_{name}")]
        if len(endings) == 1:
            return endings[0]
        raise KeyError(explain_unknown(name, options))

    def find_value_for_key(self, name: str, namespace: str = "") -> Any:
        """The value of `find_option(name, namespace)`."""
        return self[self.find_option(name, namespace).name]

    def value_set_for(self, name: str) -> bool:
        """Whether somebody set `name`, as opposed to its default.

        Raises:
            KeyError: there is no such setting.
        """
        if not self._knows(name):
            raise KeyError(explain_unknown(name, self._options))
        self.load()
        return name in self._explicit or name in self._assigned

    @property
    def changes(self) -> Mapping[str, Any]:
        """What was assigned at run time."""
        return dict(self._assigned)

    @property
    def configured(self) -> bool:
        """Whether the configuration has been read."""
        return bool(self._loaded)

    def without_defaults(self) -> dict[str, Any]:
        """Every setting that was set, or whose default was changed in place."""
        self.load()
        return {
            name: value
            for name, option in self._options.items()
            if (value := self.__dict__[name]) != option.default
            or name in self._explicit
            or name in self._assigned
        }

    # --- writing ----------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: object) -> None:
        self._assign({name: value})

    def __setitem__(self, name: str, value: object) -> None:
        self._assign({name: value})

    def __delattr__(self, name: str) -> None:
        self.reset(name)

    def __delitem__(self, name: str) -> None:
        self.reset(name)

    def update(self, *others: Mapping[str, object] | Iterable[tuple[str, object]], **values: object) -> None:
        """Assign many settings; when one of them is wrong, none is assigned.

        Raises:
            ImproperlyConfigured: a name is unknown or a value of the wrong type.
        """
        merged: dict[str, object] = {}
        for other in others:
            merged.update(other)
        self._assign({**merged, **values})

    def setdefault(self, name: str, default: object = None) -> Any:
        """The value of `name`; when nobody set it, `default` is assigned first."""
        if not self.value_set_for(name):
            self._assign({name: default})
        return self[name]

    def reset(self, *names: str) -> None:
        """Undo assignments: of `names`, or all of them."""
        with self._lock:
            for name in names or tuple(self._assigned):
                if name not in self._options:
                    raise KeyError(explain_unknown(name, self._options))
                self._assigned.pop(name, None)
            self._forget()

    def add_defaults(self, defaults: Mapping[str, object] | Callable[[], Mapping[str, object]]) -> None:
        """Put `defaults`, or what that callable returns on first use, before those of the option table.

        Names that the table does not have become settings, which is how extensions add their own.
        """
        with self._lock:
            self._defaults.append(defaults)
            self._forget()

    def _assign(self, values: Mapping[str, object]) -> None:
        with self._lock:
            checked = self._checked(values)
            self._assigned.update(checked)
            if self._loaded:
                self.__dict__.update(checked)
            self.__dict__["version"] += 1

    def _checked(self, values: Mapping[str, object]) -> dict[str, object]:
        checked: dict[str, object] = {}
        for name, value in values.items():
            if not self._knows(name):
                raise ImproperlyConfigured(explain_unknown(name, self._options))
            checked[name] = self._options[name].check(value)
        return checked

    # --- where the configuration comes from ---------------------------------------------------------

    def config_from_object(
        self, source: object, *, namespace: str = "", force: bool = False, silent: bool = False
    ) -> None:
        """Read the configuration from `source`, on first use; earlier assignments are dropped.

        Args:
            source: module, object or class with settings as attributes, mapping, or the name of one
                (`module`, `module:attribute`).
            namespace: prefix of the names in it, which then may be upper case: `Q` for `Q_BROKER_URL`.
            force: read it now.
            silent: a named module that does not exist is no error.

        Raises:
            ImproperlyConfigured: with `force`, when it cannot be read; otherwise first use raises it.
        """
        with self._lock:
            self.__dict__["_source"] = Source(source, namespace or "", silent)
            self._assigned.clear()
            self._forget()
        if force:
            self.load()

    def config_from_envvar(self, variable: str, *, silent: bool = False, force: bool = False) -> None:
        """Read the configuration from the module named by environment variable `variable`.

        Raises:
            ImproperlyConfigured: the variable is unset, unless `silent`.
        """
        name = self._environ.get(variable)
        if name:
            self.config_from_object(name, force=force, silent=silent)
        elif not silent:
            raise ImproperlyConfigured(
                f"environment variable {variable!r} is not set: it must name the configuration module, "
                f"as in {variable}=myproject.qconfig"
            )

    def config_from_cmdline(self, arguments: Iterable[str], namespace: str = "worker") -> None:
        """Assign settings from `name=value` arguments, see `sources.read_arguments`."""
        self.update(read_arguments(arguments, self._options, namespace))

    def load(self) -> None:
        """Read the configuration now, unless that has been done.

        Raises:
            ImproperlyConfigured: it cannot be read; nothing is kept then, and the next use tries again.
        """
        if self._loaded:
            return
        with self._lock:
            if self._loaded or self._loading:
                return
            self.__dict__["_loading"] = True
            try:
                if self._on_configure is not None:
                    self._on_configure()
                self._read()
            finally:
                self.__dict__["_loading"] = False
            if self._on_after_configure is not None:
                self._on_after_configure()

    def _read(self) -> None:
        further = self._learn()
        found = self._find_source()
        from_source = found.read(self._options) if found is not None else {}
        from_environment = read_environment(self._options, self._environ)
        if not self._read_before:
            for name in from_environment:
                self._assigned.pop(name, None)
        explicit = {**from_source, **self._keywords, **from_environment}
        values = {name: option.fresh_default() for name, option in self._options.items()}
        values.update(further)
        values.update(explicit)
        values.update(self._assigned)
        self.__dict__.update(values)
        self.__dict__.update(
            _explicit=frozenset(explicit), _loaded=True, _read_before=True, version=self.version + 1
        )

    def _learn(self) -> dict[str, object]:
        """Values of the further defaults; their new names join the option table."""
        merged: dict[str, object] = {}
        for index, defaults in enumerate(self._defaults):
            if callable(defaults):
                self._defaults[index] = defaults = dict(defaults())
            merged.update(defaults)
        new = {name: Option(name, ANY, nullable=True) for name in merged if name not in self._options}
        if new:
            self.__dict__["_options"] = {**self._options, **new}
        return {name: self._options[name].check(value) for name, value in merged.items()}

    def _find_source(self) -> Source | None:
        source: Source | None = self._source
        if source is not None:
            return source
        named = self._environ.get(CONFIG_MODULE_VARIABLE)
        if named:
            return Source(named)
        if self._default_module is not None and module_exists(self._default_module):
            return Source(self._default_module)
        return None

    def _knows(self, name: object) -> bool:
        # Names of further defaults are learned when these are read, which is not before something is asked for.
        if name not in self._options and not self._loaded and self._defaults:
            self._learn()
        return name in self._options

    def _provisional(self, name: str) -> Any:
        # The configuration is being read in this thread and something in it asks for a value.
        for layer in (self._assigned, self._keywords):
            if name in layer:
                return layer[name]
        return self._options[name].fresh_default()

    def _forget(self) -> None:
        self.__dict__["version"] += 1
        if self._loaded:
            self.__dict__["_loaded"] = False
            for name in self._options:
                self.__dict__.pop(name, None)

    # --- showing and shipping -----------------------------------------------------------------------

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Settings as a mapping: those that were set, or all; secrets masked unless `censored` is false."""
        values = dict(self) if with_defaults else self.without_defaults()
        return {name: report.censor(name, value) for name, value in values.items()} if censored else values

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """`table` as text, one `name: value` line per setting."""
        return report.humanize(self.table(with_defaults, censored))

    def __repr__(self) -> str:
        return f"<Settings {'of ' + self._source.label if self._source else 'without source'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            self._source,
            self._default_module,
            dict(self._keywords),
            [dict(item()) if callable(item) else item for item in self._defaults],
            dict(self._assigned),
        )


def _rebuild(
    source: Source | None,
    default_module: str | None,
    keywords: Mapping[str, object],
    defaults: list[Mapping[str, object]],
    assigned: Mapping[str, object],
) -> Settings:
    settings = Settings(default_module=default_module)
    for item in defaults:
        settings.add_defaults(item)
    settings.__dict__["_source"] = source
    settings.__dict__["_keywords"].update(settings._checked(keywords))
    settings._assign(assigned)
    return settings
