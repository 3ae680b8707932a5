"""Tasks that run side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self
from uuid import uuid4

from qcore.results import GroupResult

from .signatures import (
    Signature,
    _as_list,
    add_to_parent,
    as_members,
    as_signature,
    options_of_call,
    register,
)

_OF_THE_GROUP = ("task_id", "group_id", "group_index", "chord", "chain", "link", "link_error")


@register("group")
class group(Signature[Any]):
    """`group(a, b, c)`, `group([a, b, c])`, `group(a for ...)`: applied in parallel.

    Args:
        tasks: signatures, or one iterable of them; nested groups are unrolled when they are sent.
        options: options for every member.
    """

    def __init__(self, *tasks: Any, app: Any = None, **options: Any) -> None:
        if len(tasks) == 1 and not isinstance(tasks[0], Mapping):
            tasks = tuple(tasks[0])
        elif len(tasks) == 1 and isinstance(tasks[0], group):
            options = {**tasks[0].options, **options}
            tasks = tuple(tasks[0].tasks)
        members = as_members(tasks, app)
        if app is None and members:
            app = members[0]._app
        super().__init__("celery.group", (), {"tasks": members}, options, subtask_type="group", app=app)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Self:
        """From the wire."""
        kwargs = dict(value.get("kwargs") or {})
        found = cls(list(kwargs.pop("tasks", ())), app=app, **(value.get("options") or {}))
        found.kwargs.update(kwargs)
        found["args"] = tuple(value.get("args") or ())
        found["immutable"] = bool(value.get("immutable"))
        return found

    @property
    def tasks(self) -> list[Signature[Any]]:
        """The members."""
        found: list[Signature[Any]] = self.kwargs["tasks"]
        return found

    @property
    def app(self) -> Any:
        """The app of the members."""
        if self._app is None and self.tasks:
            self._app = self.tasks[0].app
        return super().app

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Self:
        copy = super().clone(args, kwargs, **options)
        copy.kwargs["tasks"] = [task.clone() for task in self.tasks]
        return copy

    def set_immutable(self, immutable: bool) -> None:
        """Make all members immutable, or not."""
        super().set_immutable(immutable)
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Link `callback` to every member: it is called once per member, with that member's result.

        Use a chord for something that runs when all are done.
        """
        for task in self.tasks:
            task.link(as_signature(callback, self._app).clone())
        return callback

    def link_error(self, errback: Any) -> Any:
        """Link `errback` to every member: it runs once per member that fails."""
        for task in self.tasks:
            task.link_error(as_signature(errback, self._app).clone())
        return errback

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Delay the members by increasing countdowns, in seconds; returns this group.

        Args:
            start: countdown of the first.
            stop: where the countdowns begin again at `start`; None never.
            step: difference.
        """
        countdown = start
        for task in self.tasks:
            task.set(countdown=countdown)
            countdown += step
            if stop is not None and countdown > stop:
                countdown = start
        return self

    # --- running -------------------------------------------------------------------------------

    def _unrolled(self) -> list[Signature[Any]]:
        """Copies of the members with the group's own arguments and options; groups among them opened."""
        args, kwargs = tuple(self.args), {k: v for k, v in self.kwargs.items() if k != "tasks"}
        shared = options_of_call(self.options, *_OF_THE_GROUP, "reply_to", "root_id", "parent_id")
        found: list[Signature[Any]] = []
        for task in self.tasks:
            copy = task.clone(args, kwargs)
            copy["options"] = {**shared, **copy.options}
            found.extend(copy._unrolled() if isinstance(copy, group) else (copy,))
        for errback in _as_list(self.options.get("link_error")):
            for task in found:
                task.link_error(errback)
        return found

    def _unroll(self) -> None:
        self.kwargs["tasks"] = self._unrolled()
        self["kwargs"] = {"tasks": self.kwargs["tasks"]}
        self["args"] = ()
        kept = (*_OF_THE_GROUP, "root_id", "parent_id")
        self["options"] = {k: v for k, v in self.options.items() if k in kept and k != "link_error"}

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix the ids of the group and its members; returns the `GroupResult` to come."""
        self._unroll()
        options = self.options
        own_id = options.get("task_id")
        if not own_id:
            own_id = options["task_id"] = _id or str(uuid4())
        if group_id is not None:
            options["group_id"] = group_id
        if chord is not None:
            options["chord"] = chord
        if group_index is not None:
            options["group_index"] = group_index
        results = [
            task.freeze(
                group_id=options.get("group_id"),
                chord=options.get("chord"),
                root_id=root_id,
                parent_id=parent_id,
                group_index=index,
            )
            for index, task in enumerate(self.tasks)
        ]
        return self._group_result(own_id, results)

    _freeze = freeze

    def _group_result(self, group_id: str, results: list[Any]) -> Any:
        if not self.tasks and self._app is None:
            return GroupResult(group_id, results)
        return self.app.GroupResult(group_id, results)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        add_to_parent: bool = True,
        **options: Any,
    ) -> Any:
        """Send all members, as many at a time as the broker takes; returns the `GroupResult`.

        Raises:
            TypeError: `link` or `link_error` is given; link the members, or use a chord.
        """
        for name in ("link", "link_error"):
            if options.get(name) is not None:
                raise TypeError(f"{name} cannot be given to a group: link its members, or use a chord")
        rest = options.pop("chain", None) or self.options.get("chain")
        if rest:
            return self._followed_by(rest).apply_async(args, kwargs, **options)
        if not self.tasks:
            return self.clone(**options).freeze()
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        copy = self.clone()
        copy.options.update(options_of_call({k: options.pop(k, None) for k in _OF_THE_GROUP}))
        result = copy.freeze(parent_id=None)
        copy.send(result.id, args, kwargs, options)
        if add_to_parent:
            _add_to_parent(result)
        return result

    def send(
        self,
        group_id: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> None:
        """Send the members of this frozen group."""
        own = {"group_id": self.options.get("group_id") or group_id}
        with batch(self.app):
            for task in self.tasks:
                if isinstance(task, Signature) and task.subtask_type in (None, "map", "starmap"):
                    task.options.setdefault("group_id", own["group_id"])
                else:
                    task.freeze(group_id=own["group_id"])
                task.apply_async(args, kwargs, add_to_parent=False, **options)

    def _followed_by(self, rest: Sequence[Any]) -> Any:
        """This group and the remaining chain (next task last) as a chord."""
        copy = self.clone()
        copy.options.pop("chain", None)
        return self.TYPES["chain"].join((copy, *reversed(rest)), app=self._app)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run the members here, one after the other; returns a `GroupResult` of `EagerResult`s."""
        rest = options.pop("chain", None) or self.options.get("chain")
        if rest:
            return self._followed_by(rest).apply(args, kwargs, **options)
        copy = self.clone()
        group_id = options.get("task_id") or copy.options.get("task_id") or str(uuid4())
        own = options_of_call(options, *_OF_THE_GROUP, "add_to_parent")
        results = []
        for index, task in enumerate(copy._unrolled()):
            numbered = {} if task.subtask_type else {"group_id": group_id, "group_index": index}
            results.append(task.apply(args, kwargs, **numbered, **own))
        return self._group_result(group_id, results)

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send all members, with more arguments for each."""
        return self.apply_async(partial_args, **options)

    def leaf_count(self) -> int:
        return sum(task.leaf_count() for task in self.tasks)

    def __iter__(self) -> Iterator[str]:
        return dict.__iter__(self)

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, self.tasks))}{',' if len(self.tasks) == 1 else ''})"


_add_to_parent = add_to_parent


def batch(app: Any) -> AbstractContextManager[Any]:
    """Hold what is published in the block, and put it in as few round trips as the broker allows."""
    collected: AbstractContextManager[Any] = app.amqp.producer.collect()
    return collected


def members_of(value: Iterable[Any] | Mapping[str, Any], app: Any = None) -> group:
    """`value` as a group: a group already, a signature, a mapping or an iterable of signatures."""
    if isinstance(value, Mapping):
        found = as_signature(value, app)
        return found if isinstance(found, group) else group(found, app=app)
    return group(value, app=app)
