"""Entry points: how a lower layer finds what a higher one offers.

| group | gives |
|---|---|
| `qcore.brokers` | kombu transport class per URL scheme |
| `qcore.backends` | result store class per URL scheme |
| `qcore.extensions` | attributes of the app that live higher up |
| `qworker.pools` | pool class per `--pool` name |
| `qbeat.schedulers` | scheduler class per `--scheduler` name |
| `qcli.commands` | sub-commands |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from .errors import ImproperlyConfigured, MissingPackageError

_REQUIREMENT = re.compile(r"[\w.-]+")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w.-]+)['"]""")

_KNOWN: dict[str, dict[str, str]] = {
    "qcore.brokers": dict.fromkeys(("redis", "rediss", "sentinel", "rediscluster", "sqlite"), "qbrokers"),
    "qcore.backends": dict.fromkeys(
        ("redis", "rediss", "db", "database", "cache", "memcache", "filesystem", "file", "mongodb", "s3"),
        "qbackends",
    ),
    "qcore.extensions": {
        "events": "qevents",
        "Worker": "qworker",
        "WorkController": "qworker",
        "worker_main": "qworker",
        "Beat": "qbeat",
        "start": "qcli",
    },
    "qworker.pools": dict.fromkeys(
        ("prefork", "threads", "asyncio", "gevent", "eventlet", "solo"), "qworker"
    ),
    "qbeat.schedulers": {"persistent": "qbeat", "memory": "qbeat"},
    "qcli.commands": {"worker": "qworker", "beat": "qbeat", "events": "qevents"},
}
"""Which package brings a name that is not installed; for the error text only."""

_LABELS = {
    "qcore.brokers": "the broker URL scheme {name!r}",
    "qcore.backends": "the result backend {name!r}",
    "qcore.extensions": "`app.{name}`",
    "qworker.pools": "the pool {name!r}",
    "qbeat.schedulers": "the scheduler {name!r}",
    "qcli.commands": "the command {name!r}",
}


@lru_cache(maxsize=32)
def _group(group: str) -> dict[str, EntryPoint]:
    # Reading the metadata of every installed distribution takes milliseconds, so once per group.
    return {point.name: point for point in entry_points(group=group)}


def available(group: str) -> tuple[str, ...]:
    """Names in `group` of the installed packages, sorted."""
    return tuple(sorted(_group(group)))


def find(group: str, name: str) -> object | None:
    """The object called `name`, None when no installed package offers it.

    Raises:
        MissingPackageError: it exists, but a package that it needs is not installed.
    """
    point = _group(group).get(name)
    return None if point is None else _load(point)


def load(group: str, name: str) -> object:
    """The object called `name` in `group`.

    Raises:
        MissingPackageError: no installed package offers it, but a known one would.
        ImproperlyConfigured: nobody offers it.
    """
    found = find(group, name)
    if found is not None:
        return found
    label = _label(group, name)
    package = _KNOWN.get(group, {}).get(name)
    if package is not None:
        raise MissingPackageError(label, package)
    raise ImproperlyConfigured(f"{label} is unknown: installed are {_listing(available(group))} ({group})")


def load_all(group: str) -> Iterator[tuple[str, object]]:
    """Name and object of everything in `group`, sorted by name."""
    for name in available(group):
        yield name, _load(_group(group)[name])


def refresh() -> None:
    """Forget what was read, for programs that install packages while running."""
    _group.cache_clear()


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except ModuleNotFoundError as exc:
        label = _label(point.group, point.name)
        raise MissingPackageError(f"{label} ({exc})", _bringing(point, exc.name or point.module)) from exc
    except AttributeError as exc:
        raise ImproperlyConfigured(
            f"the plugin {point.name!r} points to {point.value}, which does not exist"
        ) from exc


def _label(group: str, name: str) -> str:
    return _LABELS.get(group, "the plugin {name!r}").format(name=name)


def _bringing(point: EntryPoint, module: str) -> str:
    """What to install for `module`: the extra of the plugin's own package that asks for it, else itself."""
    name = module.partition(".")[0]
    for requirement in (point.dist.requires or ()) if point.dist is not None else ():
        wanted, extra = _REQUIREMENT.match(requirement), _EXTRA.search(requirement)
        if (
            wanted
            and extra
            and extra[1] != "all"
            and wanted[0].lower().replace("-", "_") == name
            and point.dist is not None
        ):
            return f"'{point.dist.name}[{extra[1]}]'"
    return name


def _listing(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
