"""Where a task goes: the call's own options, else what `task_routes` says, else the default queue.

A router is one of

- a mapping of task names to routes. Names may be globs (`feed.*`) or compiled regular expressions, which
  match from the start; exact names are looked up first, patterns in their order;
- a list of `(name, route)` pairs, for when the order matters;
- a function `(name, args, kwargs, options, task=None, **kwargs)`;
- an object or class with `route_for_task(name, args, kwargs)`;
- the dotted name of one of these.

A route is the name of a queue, or a mapping of call options (`queue`, `exchange`, `routing_key`, `priority`,
`serializer`, …). The first router that does not return None decides. Options of the call win over the route.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from qcore.errors import ImproperlyConfigured, QueueNotFound
from qcore.queues import Queues
from qcore.utils.imports import symbol_by_name

Route = str | Mapping[str, Any] | None
Lookup = Callable[[str, Any, Any, dict[str, Any], Any], Route]

_CACHE_LIMIT = 10_000


class MapRoute:
    """Routes by name: exact ones first, then patterns in order.

    Args:
        routes: mapping or `(name or pattern, route)` pairs.
    """

    def __init__(self, routes: Mapping[Any, Route] | Iterable[tuple[Any, Route]]) -> None:
        pairs = routes.items() if isinstance(routes, Mapping) else routes
        self.exact: dict[str, Route] = {}
        self.patterns: list[tuple[re.Pattern[str], Route]] = []
        for key, route in pairs:
            if isinstance(key, re.Pattern):
                self.patterns.append((key, route))
            elif not isinstance(key, str):
                raise ImproperlyConfigured(
                    f"task_routes: {key!r} is neither a task name nor a compiled regular expression"
                )
            elif "*" in key:
                self.patterns.append((_glob(key), route))
            else:
                self.exact[key] = route

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Route:
        """The route of task `name`, None when it has none."""
        if name in self.exact:
            return self.exact[name]
        return next((route for pattern, route in self.patterns if pattern.match(name)), None)


def _glob(pattern: str) -> re.Pattern[str]:
    # Only the asterisk is special: other glob characters may be part of a task's name.
    return re.compile(".*".join(map(re.escape, pattern.split("*"))) + r"\Z")


def prepare(routes: object) -> list[Callable[..., Route]]:
    """The routers that the setting `task_routes` stands for.

    Raises:
        ImproperlyConfigured: something in it is no router.
    """
    if routes is None:
        return []
    if isinstance(routes, (list, tuple)):
        if routes and all(_is_pair(item) for item in routes):
            return [MapRoute(routes)]
        return [_router(item) for item in routes]
    return [_router(routes)]


def _is_pair(item: object) -> bool:
    return (
        isinstance(item, (tuple, list))
        and len(item) == 2
        and isinstance(item[0], (str, re.Pattern))
        and (item[1] is None or isinstance(item[1], (str, Mapping)))
    )


def _router(router: object) -> Callable[..., Route]:
    if isinstance(router, str):
        router = symbol_by_name(router)
    if isinstance(router, Mapping):
        return MapRoute(router)
    if isinstance(router, (list, tuple)):
        return MapRoute(router)
    if isinstance(router, type):
        router = router()
    by_task = getattr(router, "route_for_task", None)
    if by_task is not None:
        return _OldRouter(by_task)
    if callable(router):
        return router
    raise ImproperlyConfigured(f"task_routes: {router!r} is no router")


class _OldRouter:
    """Calls `route_for_task(name, args, kwargs)` of an object."""

    def __init__(self, route_for_task: Callable[..., Route]) -> None:
        self.route_for_task = route_for_task

    def __call__(self, name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Route:
        return self.route_for_task(name, args, kwargs)


class Router:
    """Finds the options of calls.

    When every router is a mapping, the route of a task depends on its name alone and is looked up once.

    Args:
        conf: settings `task_routes` and `task_default_queue`.
        queues: queues by name.
        app: unused by the router itself; kept for routers that ask for it.
    """

    def __init__(self, conf: Any, queues: Queues, app: Any = None) -> None:
        self.conf = conf
        self.queues = queues
        self.app = app
        self._routers: list[Callable[..., Route]] = []
        self._static = True
        self._cache: dict[str, dict[str, Any] | None] = {}
        self._seen: tuple[object, ...] = ()

    def route(
        self,
        options: Mapping[str, Any],
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        task: Any = None,
    ) -> dict[str, Any]:
        """`options` completed by the task's route.

        Args:
            options: of the call; those that are None count as not given. Not changed.
            name: of the task.
            args: positional arguments, for router functions.
            kwargs: keyword arguments, likewise.
            task: the task's object; None when it is called by name.

        Returns:
            New options; `queue`, if any, is a `kombu.Queue`. The default queue is added when neither call nor
            route decides.

        Raises:
            QueueNotFound: a queue is neither declared nor may be created.
        """
        self._refresh()
        given = {key: value for key, value in options.items() if value is not None}
        if "queue" in given:
            given["queue"] = self._queue(given["queue"])
        if self._static:
            try:
                found = self._cache[name]
            except KeyError:
                found = self._remember(name)
        else:
            found = self._look_up(name, args, {} if kwargs is None else kwargs, given, task)
        if found is not None:
            return {**found, **given}
        if "queue" not in given:
            given["queue"] = self._queue(self.conf.task_default_queue)
        return given

    def expand_destination(self, route: str | Mapping[str, Any]) -> dict[str, Any]:
        """The options of a route, `queue` as a `kombu.Queue`; text is the name of a queue.

        Raises:
            QueueNotFound: the queue is neither declared nor may be created.
        """
        options = {"queue": route} if isinstance(route, str) else dict(route)
        queue = options.pop("queue", None)
        if queue:
            options["queue"] = self._queue(queue)
        return options

    def lookup_route(
        self, name: str, args: Any = (), kwargs: Any = None, options: Any = None, task: Any = None
    ) -> Route:
        """What the first router that knows task `name` says; None when no one does."""
        self._refresh()
        for router in self._routers:
            found = router(name, args, {} if kwargs is None else kwargs, options or {}, task=task)
            if found is not None:
                return found
        return None

    def _refresh(self) -> None:
        # Settings and queues may change at any time; comparing three values is all that costs here.
        seen = (self.conf.task_routes, self.conf.task_default_queue, self.queues.version)
        previous = self._seen
        if (
            len(previous) == 3
            and previous[0] is seen[0]
            and previous[1] is seen[1]
            and previous[2] == seen[2]
        ):
            return
        if not previous or previous[0] is not seen[0]:
            self._routers = prepare(seen[0])
            self._static = all(isinstance(router, MapRoute) for router in self._routers)
        self._cache = {}
        self._seen = seen

    def _remember(self, name: str) -> dict[str, Any] | None:
        found = self._look_up(name, (), {}, {}, None)
        self._refresh()  # a queue may have been created, which empties the cache
        if len(self._cache) < _CACHE_LIMIT:
            self._cache[name] = found
        return found

    def _look_up(
        self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any
    ) -> dict[str, Any] | None:
        route = self.lookup_route(name, args, kwargs, options, task)
        # An empty route decides nothing, so the default queue applies.
        return self.expand_destination(route) if route else None

    def _queue(self, queue: Any) -> Any:
        if not isinstance(queue, str):
            return queue
        try:
            return self.queues[queue]
        except KeyError as exc:
            raise QueueNotFound(
                f"queue {queue!r} is not declared in task_queues, and task_create_missing_queues is off: "
                f"declare it, or use one of {', '.join(self.queues) or 'none'}"
            ) from exc
