"""One call to come: name of the task, arguments, options. A dict, in the shape of table W6."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar
from uuid import uuid4

from qcore import current
from qcore.results import AsyncResult

from .stamping import Stamper

R = TypeVar("R")

_KEPT_BY_IMMUTABLE = frozenset({"group_id", "stamped_headers"})
"""Options that a caller does not change once they are set."""


class Signature(dict[str, Any], Generic[R]):
    """A call that can be passed around, completed, sent, and written as JSON.

    Args:
        task: name of the task, the task itself, or a mapping that is a signature already.
        args: positional arguments; a call puts its own before them.
        kwargs: keyword arguments; those of a call win.
        options: arguments of `apply_async`.
        type: the task, when only its name was given.
        subtask_type: `chain`, `group`, `chord`, `chunks`, `map`, `starmap`, or None for a plain task.
        immutable: take no arguments from a call, such as the result of the task before.
        app: default the task's, else the current one.
        ex: further options.
    """

    TYPES: ClassVar[dict[str, Any]] = {}
    """Class for each `subtask_type`."""

    _app: Any
    _type: Any

    def __init__(
        self,
        task: Any = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **ex: Any,
    ) -> None:
        self._app = app
        self._type = type
        if isinstance(task, Mapping):
            super().__init__(task)
            for key, default in (("args", ()), ("kwargs", {}), ("options", {}), ("immutable", False)):
                self[key] = _own(self.get(key) or default)
            self.setdefault("subtask_type", None)
            return
        if not isinstance(task, str) and task is not None:
            self._type, task = task, task.name
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **ex},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """The signature that a mapping stands for, of the class that its `subtask_type` tells."""
        kind = value.get("subtask_type")
        special = cls.TYPES.get(kind) if kind else None
        if special is not None and special is not cls:
            found: Signature[Any] = special.from_dict(value, app=app)
            return found
        return Signature(value, app=app)

    # --- fields --------------------------------------------------------------------------------

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self["task"])

    @property
    def args(self) -> Any:
        """Positional arguments."""
        return self["args"]

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        found: dict[str, Any] = self["kwargs"]
        return found

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `apply_async`."""
        found: dict[str, Any] = self["options"]
        return found

    @property
    def subtask_type(self) -> str | None:
        """Kind of workflow, None for a plain task."""
        found: str | None = self["subtask_type"]
        return found

    @property
    def immutable(self) -> bool:
        """Whether arguments of a call are ignored."""
        return bool(self["immutable"])

    @property
    def id(self) -> str | None:
        """Id that the task will have, once frozen."""
        return self.options.get("task_id")

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sends this one."""
        return self.options.get("parent_id")

    @property
    def root_id(self) -> str | None:
        """Id of the first task of the workflow."""
        return self.options.get("root_id")

    @property
    def name(self) -> str:
        """Same as `task`."""
        return self.task

    @property
    def app(self) -> Any:
        """The app that sends it."""
        if self._app is None:
            self._app = self._type.app if self._type is not None else current.get_current_app()
        return self._app

    @property
    def type(self) -> Any:
        """The task; raises `NotRegistered` when this process does not have it."""
        if self._type is None:
            self._type = self.app.tasks[self.task]
        return self._type

    # --- changing ------------------------------------------------------------------------------

    def _merge(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Arguments and options of a call with more of them."""
        merged = dict(self.options)
        for name, value in (options or {}).items():
            if name not in _KEPT_BY_IMMUTABLE or not merged.get(name):
                merged[name] = value
        if self.immutable and not force:
            return tuple(self.args), self.kwargs, merged
        own = self.kwargs
        return (*(args or ()), *self.args), {**own, **kwargs} if kwargs else own, merged

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Self:
        """A copy with more arguments (put first), keyword arguments and options."""
        merged_args, merged_kwargs, merged_options = self._merge(args, kwargs, options)
        copy = self._copy()
        copy["args"] = merged_args
        copy["kwargs"] = dict(merged_kwargs)
        copy["options"] = _own(merged_options)
        return copy

    partial = clone

    def _copy(self) -> Self:
        copy = self.__class__.__new__(self.__class__)
        dict.update(copy, self)
        copy._app, copy._type = self._app, self._type
        return copy

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """A copy with other arguments, keyword arguments or options; None keeps them."""
        copy = self.clone()
        for key, value in (("args", args), ("kwargs", kwargs), ("options", options)):
            if value is not None:
                copy[key] = value
        return copy

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Set options in place; returns this signature."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Take arguments of calls, or not."""
        self["immutable"] = immutable

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add `value` to the list option `key` unless it is there; returns it."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, values: Any) -> None:
        """Add a value or several to the list option `key`."""
        self._list_option(key).extend(_as_list(values))

    def _list_option(self, key: str) -> list[Any]:
        items = _as_list(self.options.get(key))
        self.options[key] = items
        return items

    def link(self, callback: Any) -> Any:
        """Send `callback` with the result when the task succeeds; returns it."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Call `errback` when the task fails; returns it."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Self:
        """`link_error`, returning this signature."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> list[Signature[Any]]:
        """This signature and all callbacks below it."""
        found: list[Signature[Any]] = [self]
        for link in _as_list(self.options.get("link")):
            found.extend(as_signature(link, self._app).flatten_links())
        return found

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Label this and everything in it; see `qcore.canvas.stamping`.

        Args:
            visitor: a `StampingVisitor` that makes the labels.
            append_stamps: collect the values of a label that is there already in a list; False replaces them.
            headers: labels to set.
        """
        Stamper(as_signature, visitor, append_stamps).stamp(self, headers)
        return self

    # --- ids -----------------------------------------------------------------------------------

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix the ids before anything is sent, in place; returns the result to come.

        Ids that are fixed already stay.

        Args:
            _id: id for the task, default a new one.
            group_id: group that it belongs to.
            chord: body that the group's chord has.
            root_id: first task of the workflow.
            parent_id: task that sends it.
            group_index: position in the group.
        """
        options = self.options
        task_id = options.get("task_id")
        if not task_id:
            task_id = options["task_id"] = _id or str(uuid4())
        if not options.get("reply_to"):
            options["reply_to"] = self.app.oid
        given = (
            ("group_id", group_id),
            ("chord", chord),
            ("root_id", root_id),
            ("parent_id", parent_id),
            ("group_index", group_index),
        )
        for name, value in given:
            if value is not None:
                options[name] = value
        return self._result(task_id)

    _freeze = freeze

    def _result(self, task_id: str) -> Any:
        task = self._type if self._type is not None else self.app.tasks.get(self.task)
        result = self.app.AsyncResult(task_id) if task is None else task.AsyncResult(task_id)
        if self.options.get("ignore_result"):
            result.ignored = True
        return result

    # --- running -------------------------------------------------------------------------------

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """Send, with more arguments."""
        result: AsyncResult[R] = self.apply_async(args, kwargs)
        return result

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send, with more arguments and options; parameters and errors are those of `Task.apply_async`."""
        args, kwargs, merged = self._merge(args, kwargs, options)
        _collect_stamps(merged)
        task = self._type if self._type is not None else self.app.tasks.get(self.task)
        if route_name is not None:
            merged["route_name"] = route_name
        if task is None:
            return self.app.send_task(self.task, args, kwargs, **merged)
        return task.apply_async(args, kwargs, **merged)

    async def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """`delay` that does not block the event loop."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """`apply_async` that does not block the event loop; a workflow is sent on its own, as it may take a while."""
        import asyncio

        return await asyncio.to_thread(self.apply_async, args, kwargs, **options)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run here, through the same steps as in a worker; returns an `EagerResult`."""
        args, kwargs, merged = self._merge(args, kwargs, options)
        _collect_stamps(merged)
        return self.type.apply(args, kwargs, **merged)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task as a function, here and now."""
        merged_args, merged_kwargs, _ = self._merge(args, kwargs)
        return self.type(*merged_args, **merged_kwargs)

    def __invert__(self) -> R:
        """`~sig`: send and wait."""
        return self.delay().get()

    # --- composing -----------------------------------------------------------------------------

    def __or__(self, other: Any) -> Any:
        """`a | b`: b after a, with a's result."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.TYPES["chain"].join((self, as_signature(other, self._app)), app=self._app)

    def __ror__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.TYPES["chain"].join((as_signature(other, self._app), self), app=self._app)

    def last_group_id(self) -> str | None:
        """The group that the last task of this belongs to, once frozen."""
        return self.options.get("group_id")

    def leaf_count(self) -> int:
        """How many tasks report to a chord when this is a member of its header (W17-12)."""
        return 1

    # --- Python --------------------------------------------------------------------------------

    def reprcall(self, *args: Any) -> str:
        """The call as text: `tasks.add(2, 2, debug=True)`."""
        shown = [repr(value) for value in (*args, *self.args)]
        shown.extend(f"{name}={value!r}" for name, value in self.kwargs.items())
        return f"{self.task}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __hash__(self) -> int:  # type: ignore[override]  # results and promises keep signatures in sets
        return id(self)

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature[Any]:
        memo[id(self)] = self
        return self.clone()

    def __copy__(self) -> Self:
        return self.clone()

    def __reduce__(self) -> Any:
        return _restore, (dict(self),)


def _restore(value: Mapping[str, Any]) -> Signature[Any]:
    return Signature.from_dict(value)


def as_signature(value: Any, app: Any = None) -> Signature[Any]:
    """`value` itself when it is a signature, else the one that the mapping stands for."""
    if isinstance(value, Signature):
        if app is not None and value._app is None and value._type is None:
            value._app = app
        return value
    return Signature.from_dict(value, app=app)


def register(kind: str) -> Callable[[type[S]], type[S]]:
    """Class decorator: signatures of `subtask_type` `kind` are of this class."""

    def add(cls: type[S]) -> type[S]:
        Signature.TYPES[kind] = cls
        return cls

    return add


S = TypeVar("S", bound=Signature[Any])


def options_of_call(options: Mapping[str, Any], *without: str) -> dict[str, Any]:
    """`options` less those named and those that are None."""
    return {name: value for name, value in options.items() if name not in without and value is not None}


def as_members(tasks: Iterable[Any], app: Any = None) -> list[Signature[Any]]:
    """Copies of the given signatures or mappings."""
    return [as_signature(task, app).clone() for task in tasks]


def roots_of(result: Any) -> Any:
    """The first of the results that lead to `result`."""
    while result.parent is not None:
        result = result.parent
    return result


def add_to_parent(result: Any) -> None:
    """Make `result` a child of the task that runs here, if one does."""
    request = current.get_worker_request()
    if request is None or request.id is None or request.called_directly:
        return
    running = current.get_current_task()
    if running is None or running.trail:
        request.children.append(result)


def signatures_in(value: Any) -> Iterator[Any]:
    """The elements of a list option."""
    yield from _as_list(value)


def _collect_stamps(options: dict[str, Any]) -> None:
    """Stamps stand among the options under their own names; gather them for the message."""
    names = options.get("stamped_headers")
    if names:
        stamps = dict(options.get("stamps") or {})
        for name in names:
            if name in options:
                stamps[name] = options.pop(name)
        options["stamps"] = stamps


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _own(value: Any) -> Any:
    """A copy of a container whose lists are copied too, so that adding to them changes no other signature."""
    if isinstance(value, Mapping):
        return {key: list(item) if isinstance(item, list) else item for key, item in value.items()}
    return value
