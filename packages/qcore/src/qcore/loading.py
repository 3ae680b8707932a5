"""Finding the app that `-A` names, and importing the modules that hold tasks."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from qcore import signals
from qcore.errors import LoadError
from qcore.utils.imports import import_module, is_missing, module_exists, trimmed_traceback
from qcore.utils.text import listing

_NAMES = ("app", "q")
_SUBMODULE = "q"


def is_app(value: object) -> bool:
    """Whether `value` is an app; proxies for the current app are not."""
    return any(cls.__module__ == "qcore.app" and cls.__name__ == "App" for cls in type(value).__mro__)


def find_app(name: str) -> Any:
    """The app that `name` means; the working directory becomes importable.

    `module:attribute` (or `module:a.b`) says it exactly. For a module or package `proj`, the first of these
    is taken: `proj.app`, `proj.q`, any app in `proj`; then `app`, `q` and any app in the submodule `proj.q`.
    `package.module.attribute` works as well.

    Raises:
        LoadError: nothing there is an app, or importing it failed; the text shows what was looked for, or
            the traceback of the failed import.
    """
    add_cwd_to_path()
    module_name, colon, path = name.partition(":")
    if not name or not module_name or (colon and not path):
        raise LoadError(f"{name!r} names no app: give MODULE or MODULE:ATTRIBUTE, such as proj or proj.q:app")
    if os.sep in name or (module_name.endswith(".py") and not module_exists(module_name)):
        plain = module_name.removesuffix(".py").strip("./").replace(os.sep, ".")
        raise LoadError(f"{name!r} is a path: give the name of the module, {plain}{colon}{path}")
    if colon:
        return _exact(_import(module_name, name), path, name)
    found: Any = _module_or_attribute(name)
    if not isinstance(found, ModuleType):
        return _checked(found, name)
    return _search(found, name)


def add_cwd_to_path() -> None:
    """Make modules of the working directory importable, before all others."""
    cwd = os.getcwd()
    if cwd not in sys.path:
        sys.path.insert(0, cwd)


def _exact(module: ModuleType, path: str, name: str) -> Any:
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            apps = [attribute for attribute, value in vars(module).items() if is_app(value)]
            hint = f"; its apps are {listing(apps)}" if apps else ""
            raise LoadError(f"no app at {name!r}: {module.__name__} has no attribute {path!r}{hint}") from exc
    return _checked(found, name)


def _checked(found: Any, name: str) -> Any:
    if is_app(found):
        return found
    kind = type(found)
    foreign = " (an app of another library)" if hasattr(found, "send_task") else ""
    raise LoadError(f"{name!r} is no qcore.App but a {kind.__module__}.{kind.__qualname__}{foreign}")


def _module_or_attribute(name: str) -> object:
    """Module `name`, or the attribute that the last part of it names."""
    parent, dot, attribute = name.rpartition(".")
    if dot and not _exists(name):
        module = _import(parent, name)
        if hasattr(module, attribute):
            return getattr(module, attribute)
    return _import(name, name)


def _exists(name: str) -> bool:
    try:
        return module_exists(name)
    except Exception as exc:
        # A parent package runs code on import.
        raise LoadError(_broken(name, exc)) from exc


def _search(module: ModuleType, name: str) -> Any:
    found = _app_in(module)
    if found is not None:
        return found
    submodule_name = f"{module.__name__}.{_SUBMODULE}"
    looked = [f"{module.__name__}.{attribute}" for attribute in _NAMES]
    looked.append(f"any App in {module.__name__}")
    if hasattr(module, "__path__"):
        if _exists(submodule_name):
            found = _app_in(_import(submodule_name, name))
            if found is not None:
                return found
        looked.append(f"the same in {submodule_name}")
    raise LoadError(
        f"no app found in {name!r}: looked for {', '.join(looked)}. Say where it is: -A MODULE:ATTRIBUTE"
    )


def _app_in(module: ModuleType) -> Any:
    for attribute in _NAMES:
        value = getattr(module, attribute, None)
        if is_app(value):
            return value
    return next((value for value in vars(module).values() if is_app(value)), None)


def _import(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if is_missing(exc, module_name):
            raise LoadError(
                f"cannot load the app {name!r}: there is no module {exc.name!r} in {os.getcwd()} or on the "
                f"Python path{_did_you_mean(str(exc.name))}"
            ) from exc
        raise LoadError(_broken(name, exc)) from exc
    except Exception as exc:
        # The module runs foreign code; its own traceback tells best what is wrong.
        raise LoadError(_broken(name, exc)) from exc


def _broken(name: str, exc: BaseException) -> str:
    return f"cannot load {name!r}, importing it failed:\n{trimmed_traceback(exc, __file__)}"


def _did_you_mean(module_name: str) -> str:
    present = {info.name for info in pkgutil.iter_modules([os.getcwd()])}
    near = difflib.get_close_matches(module_name, present, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


class Loader:
    """Imports the modules that hold tasks. Subclass it and give it to the app to be told of a worker's life.

    Args:
        app: whose settings `imports` and `include` name the modules.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()
        self.worker_initialized = False
        self._discoveries: list[Callable[[], None]] = []

    # --- hooks ------------------------------------------------------------------------------------

    def on_worker_init(self) -> None:
        """Called when a worker starts, after modules were imported."""

    def on_worker_process_init(self) -> None:
        """Called in a pool process when it starts."""

    def on_worker_shutdown(self) -> None:
        """Called when a worker ends."""

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Called before a task runs."""

    def on_process_cleanup(self) -> None:
        """Called after a task has run."""

    def init_worker(self) -> None:
        """Prepare a worker's main process, once."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def init_worker_process(self) -> None:
        """Prepare a pool process."""
        self.on_worker_process_init()

    def shutdown_worker(self) -> None:
        """End a worker."""
        self.on_worker_shutdown()

    # --- modules ----------------------------------------------------------------------------------

    @property
    def default_modules(self) -> list[str]:
        """The modules of `imports`, then those of `include`, each once."""
        return list(dict.fromkeys([*(self.app.conf.imports or ()), *(self.app.conf.include or ())]))

    def import_default_modules(self) -> None:
        """Import everything that may hold tasks: discovered modules, `imports`, `include`.

        Raises:
            LoadError: one of them does not exist or is broken.
        """
        for _receiver, response in signals.import_modules.send(sender=self.app):
            if isinstance(response, Exception):
                raise response
        for discover in list(self._discoveries):
            discover()
        for name in self.default_modules:
            self.import_task_module(name)

    def import_task_module(self, name: str) -> ModuleType:
        """Import module `name`, which holds tasks.

        Raises:
            LoadError: it does not exist or is broken.
        """
        try:
            module = import_module(name)
        except ModuleNotFoundError as exc:
            if is_missing(exc, name):
                raise LoadError(
                    f"cannot import the task module {name!r}: there is no module {exc.name!r}"
                    f"{_did_you_mean(str(exc.name))}; check the settings imports and include"
                ) from exc
            raise LoadError(_broken(name, exc)) from exc
        except Exception as exc:
            # Task modules are foreign code; a worker without its tasks must not start.
            raise LoadError(_broken(name, exc)) from exc
        self.task_modules.add(name)
        return module

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Import module `related_name` of each package that has one, when default modules are imported.

        Args:
            packages: names, or what returns them; None: the installed apps of Django.
            related_name: None imports the packages alone.
            force: import now.
        """

        def discover() -> None:
            names = _django_apps() if packages is None else packages() if callable(packages) else packages
            for package in [names] if isinstance(names, str) else names:
                self.find_related_module(package, related_name)

        if force:
            discover()
        else:
            self._discoveries.append(discover)

    def find_related_module(self, package: str, related_name: str | None) -> ModuleType | None:
        """Import `package.related_name`; None when the package has no such module.

        Raises:
            LoadError: the package does not exist, or one of the two is broken.
        """
        module = self.import_task_module(package)
        if not related_name or not hasattr(module, "__path__"):
            return module
        name = f"{module.__name__}.{related_name}"
        return self.import_task_module(name) if module_exists(name) else None


def _django_apps() -> list[str]:
    """Packages of the installed Django apps; Django is set up if that has not been done."""
    if "DJANGO_SETTINGS_MODULE" not in os.environ:
        return []
    try:
        django: Any = importlib.import_module("django")
        registry: Any = importlib.import_module("django.apps").apps
    except ImportError:
        return []
    if not registry.ready:
        django.setup()
    return [config.name for config in registry.get_app_configs()]
