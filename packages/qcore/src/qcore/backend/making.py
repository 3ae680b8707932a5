"""Find the class of a result store by its URL, and make it."""

from __future__ import annotations

from typing import Any

from qcore import plugins
from qcore.connections import result_backend_url
from qcore.errors import ImproperlyConfigured
from qcore.utils.imports import symbol_by_name

from .contract import Backend
from .disabled import DisabledBackend
from .memory import MemoryBackend

_OWN = {
    "disabled": DisabledBackend,
    "memory": MemoryBackend,
    "cache+memory": MemoryBackend,
    "cache+in-memory": MemoryBackend,
}


def make_backend(app: Any, backend: Any = None) -> Backend:
    """The result store of `app`.

    Args:
        app: the app.
        backend: URL, class, instance or class path (`module:Class`); None takes `result_backend`, else the
            embedded store when the embedded broker is in force, else results are disabled.

    Raises:
        ImproperlyConfigured: nobody knows the URL's scheme.
        MissingPackageError: its store needs a package that is not installed.
    """
    if isinstance(backend, Backend):
        return backend
    if isinstance(backend, type):
        return backend(app, "")  # type: ignore[no-any-return]
    url = backend or result_backend_url(app.conf) or "disabled://"
    scheme, found, _ = url.partition("://")
    cls = _class_of(app, scheme.rstrip(":"), bool(found))
    return cls(app, url)  # type: ignore[no-any-return]


def _class_of(app: Any, scheme: str, is_url: bool) -> Any:
    overridden = (app.conf.override_backends or {}).get(scheme)
    if overridden:
        return symbol_by_name(overridden)
    if scheme in _OWN:
        return _OWN[scheme]
    base = scheme.partition("+")[0]
    for name in (scheme, base):
        found = plugins.find("qcore.backends", name)
        if found is not None:
            return found
    if "." in scheme or (not is_url and ":" in scheme):
        return symbol_by_name(scheme)
    try:
        return plugins.load("qcore.backends", base)
    except ImproperlyConfigured as exc:
        known = ", ".join(sorted({*_OWN, *plugins.available("qcore.backends")}))
        raise ImproperlyConfigured(
            f"result_backend: nobody knows {scheme!r}. Use one of {known}, or the path of a class (module:Class)"
        ) from exc
