"""Tasks one after the other, each with the result of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, cast

from qcore import states
from qcore.results import EagerResult, GroupResult

from .chords import chord
from .groups import group
from .signatures import Signature, _as_list, as_signature, options_of_call, register, roots_of

_OF_THE_LAST = ("task_id", "group_id", "group_index", "chord", "link")


class _ChainType(type):
    """Lets `chain(a, b)` be what `a | b` is, which may be no chain."""

    def __call__(cls, *tasks: Any, **options: Any) -> Any:
        if len(tasks) == 1 and not isinstance(tasks[0], Mapping):
            tasks = tuple(tasks[0])
        app = options.pop("app", None)
        steps = normalized((as_signature(task, app).clone() for task in tasks), unroll_first=True)
        if len(steps) == 1 and len(tasks) > 1:
            steps[0].set(**options)
            return steps[0]
        return cls.of(steps, app=app, options=options)  # type: ignore[attr-defined]


@register("chain")
class chain(Signature[Any], metaclass=_ChainType):
    """`chain(a, b, c)`, `chain([a, b, c])` or `a | b | c`.

    A group followed by a task becomes a chord; `chain(group, task)` is that chord.

    Args:
        tasks: signatures, or one iterable of them.
        options: options of the chain: links and ids concern its last task, others its first.
    """

    def __init__(self, tasks: Sequence[Signature[Any]] = (), app: Any = None, **options: Any) -> None:
        if app is None and tasks:
            app = tasks[0]._app
        super().__init__("celery.chain", (), {"tasks": list(tasks)}, options, subtask_type="chain", app=app)

    @classmethod
    def of(
        cls, steps: Sequence[Signature[Any]], app: Any = None, options: Mapping[str, Any] | None = None
    ) -> Self:
        """A chain of exactly these steps."""
        return cast("Self", type.__call__(cls, steps, app=app, **(options or {})))

    @classmethod
    def join(cls, parts: Iterable[Signature[Any]], app: Any = None) -> Signature[Any]:
        """What `a | b | c` is: a chain, or the chord or signature that remains."""
        steps = normalized(part.clone() for part in parts)
        return steps[0] if len(steps) == 1 else cls.of(steps, app=app)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Self:
        """From the wire."""
        kwargs = dict(value.get("kwargs") or {})
        steps = normalized(as_signature(task, app) for task in kwargs.pop("tasks", ()))
        found = cls.of(steps, app=app, options=value.get("options"))
        found.kwargs.update(kwargs)
        found["args"] = tuple(value.get("args") or ())
        found["immutable"] = bool(value.get("immutable"))
        return found

    @property
    def tasks(self) -> list[Signature[Any]]:
        """The steps."""
        found: list[Signature[Any]] = self.kwargs["tasks"]
        return found

    @property
    def id(self) -> str | None:
        """Id of the last task, once frozen."""
        return self.tasks[-1].id if self.tasks else None

    @property
    def app(self) -> Any:
        """The app of the steps."""
        if self._app is None and self.tasks:
            self._app = self.tasks[0].app
        return super().app

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return bool(self.tasks)

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Self:
        copy = super().clone(args, kwargs, **options)
        copy.kwargs["tasks"] = [task.clone() for task in self.tasks]
        return copy

    def set_immutable(self, immutable: bool) -> None:
        """Let the first step ignore arguments of calls, or not."""
        super().set_immutable(immutable)
        if self.tasks:
            self.tasks[0].set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Send `callback` after the last step."""
        self.tasks[-1].link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Call `errback` if a step fails."""
        for task in self.tasks:
            task.link_error(errback)
        return errback

    def last_group_id(self) -> str | None:
        return self.tasks[-1].last_group_id() if self.tasks else None

    def leaf_count(self) -> int:
        """That of the last step that has any."""
        return next((count for task in reversed(self.tasks) if (count := task.leaf_count())), 0)

    # --- running -------------------------------------------------------------------------------

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix the ids of all steps; returns the last one's result, with the others as its parents."""
        previous: Any = None
        last = len(self.tasks) - 1
        for position, task in enumerate(self.tasks):
            if position < last:
                result = task.freeze(root_id=root_id)
            else:
                result = task.freeze(
                    _id, group_id=group_id, chord=chord, root_id=root_id, group_index=group_index
                )
            if previous is not None:
                roots_of(result).parent = previous
            previous = result
        if self.tasks:
            self.options["task_id"] = self.id
        return previous

    _freeze = freeze

    def _prepared(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> tuple[list[Signature[Any]], dict[str, Any]]:
        """Copies of the steps with everything of this call in its place, and the options for the first."""
        copy = self.clone(args, kwargs)
        given = {**options_of_call(copy.options, "task_id"), **options_of_call(options)}
        own_kwargs = {name: value for name, value in copy.kwargs.items() if name != "tasks"}
        steps = copy.tasks
        steps[0] = steps[0].clone(copy.args, own_kwargs)
        for link in _as_list(given.pop("link", None)):
            steps[-1].link(link)
        for errback in _as_list(given.pop("link_error", None)):
            for step in steps:
                step.link_error(errback)
        steps = normalized(steps)
        if given.get("task_id"):
            steps[-1].options.pop("task_id", None)
        return steps, given

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the first step; returns the result of the last, or None if the chain is empty.

        `link` and ids are for the last step, `link_error` for all, other options for the first.
        """
        if not self.tasks:
            return None
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        steps, given = self._prepared(args, kwargs, options)
        behind = given.pop("chain", None) or []
        ids = options_of_call({name: given.pop(name, None) for name in _OF_THE_LAST if name != "link"})
        whole = chain.of(steps, app=self._app)
        result = whole.freeze(ids.pop("task_id", None), **ids)
        first, *rest = steps
        following = [*behind, *reversed(rest)]
        if following:
            given["chain"] = following
        first.apply_async(**given)
        return result

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run the steps here; returns the last one's `EagerResult`, None if the chain is empty.

        When a step fails, the later ones do not run and have its exception as their result.
        """
        if not self.tasks:
            return None
        steps, given = self._prepared(args, kwargs, options)
        behind = [as_signature(task, self._app) for task in reversed(given.pop("chain", None) or ())]
        own = options_of_call(given, *_OF_THE_LAST, "add_to_parent")
        shared = options_of_call({"throw": own.get("throw")})
        previous: Any = None
        for position, step in enumerate(normalized([*steps, *behind])):
            if previous is None:
                result = step.apply(**own)
            elif _failed(previous):
                result = _also_failed(step, previous)
            else:
                last_id = given.get("task_id") if position == len(steps) - 1 else None
                extra = options_of_call({"task_id": last_id})
                result = step.apply((previous.get(disable_sync_subtasks=False),), **shared, **extra)
            if previous is not None:
                roots_of(result).parent = previous
            previous = result
        return previous

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send the first step with these arguments."""
        return self.apply_async(args, kwargs)

    def reprcall(self, *args: Any) -> str:
        """The steps joined by ` | `, the first with more arguments."""
        if not self.tasks:
            return f"<chain@{id(self):#x}: empty>"
        first, *rest = self.tasks
        return f"({' | '.join([first.reprcall(*args), *map(repr, rest)])})"

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<chain@{id(self):#x}: empty>"
        return " | ".join(map(repr, self.tasks))

    def __iter__(self) -> Iterator[str]:
        return dict.__iter__(self)


def normalized(parts: Iterable[Signature[Any]], unroll_first: bool = False) -> list[Signature[Any]]:
    """The steps of a chain: chains among them opened, what follows a group made the body of a chord.

    Args:
        parts: signatures that may be changed.
        unroll_first: whether a group of one member is opened at the first place too; elsewhere it always is.
    """
    steps: list[Signature[Any]] = []
    for part in _opened(parts, unroll_first):
        last = steps[-1] if steps else None
        if isinstance(last, group):
            steps[-1] = _as_chord(last, part)
        elif isinstance(last, chord) and last.kwargs["body"] is not None:
            last.kwargs["body"] = chain.join((last.body, part), app=last._app)
        else:
            steps.append(part)
    return steps


def _as_chord(header: group, body: Signature[Any]) -> chord:
    """The chord that a group followed by `body` is."""
    upgraded = chord(header, body, app=header._app)
    if header.options.get("task_id"):
        upgraded.options["task_id"] = header.options["task_id"]
    if upgraded.app.conf.task_allow_error_cb_on_chord_header:
        for errback in _as_list(body.options.get("link_error")):
            upgraded.tasks.link_error(errback)
    return upgraded


def _opened(parts: Iterable[Signature[Any]], unroll_first: bool) -> Iterator[Signature[Any]]:
    opened = 0
    for part in parts:
        found: Iterable[Signature[Any]] = (part,)
        if isinstance(part, chain):
            found = _steps_of(part)
        elif isinstance(part, group) and len(part) == 1 and (opened or unroll_first):
            members = part._unrolled()
            if len(members) == 1:
                found = _opened(members, unroll_first)
        for step in found:
            opened += 1
            yield step


def _steps_of(part: chain) -> list[Signature[Any]]:
    """The steps of a chain within a chain, with what was set on the inner one."""
    steps = list(part.tasks)
    if not steps:
        return steps
    own_kwargs = {name: value for name, value in part.kwargs.items() if name != "tasks"}
    if part.args or own_kwargs:
        steps[0] = steps[0].clone(part.args, own_kwargs)
    for name, value in part.options.items():
        if name in ("link", "link_error"):
            for link in _as_list(value):
                for step in steps if name == "link_error" else steps[-1:]:
                    (step.link if name == "link" else step.link_error)(link)
        elif name in _OF_THE_LAST:
            steps[-1].options.setdefault(name, value)
        elif name == "chain":
            steps.extend(as_signature(task, part._app) for task in reversed(value or ()))
        else:
            steps[0].options.setdefault(name, value)
    return steps


def _failed(result: Any) -> bool:
    if isinstance(result, GroupResult):
        return any(_failed(member) for member in result.results)
    return result is not None and result.state in states.PROPAGATE_STATES


def _also_failed(step: Signature[Any], previous: Any) -> Any:
    """The results of a step that did not run because one before it failed."""
    cause = previous
    while isinstance(cause, GroupResult):
        cause = next(member for member in cause.results if _failed(member))
    frozen = step.freeze()
    return _with_failure(frozen, cause, step.app)


def _with_failure(frozen: Any, cause: Any, app: Any) -> Any:
    if isinstance(frozen, GroupResult):
        members = [_with_failure(member, cause, app) for member in frozen.results]
        return app.GroupResult(frozen.id, members)
    return EagerResult(frozen.id, cause.result, cause.state, cause.traceback, app=app)
