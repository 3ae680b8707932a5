"""A group, and a task that runs when all of the group is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self
from uuid import uuid4

from qcore import states
from qcore.backend.chords import dependency_error
from qcore.results import EagerResult, GroupResult
from qcore.results.single import leaves_of

from .groups import group, members_of
from .signatures import Signature, _as_list, add_to_parent, as_signature, options_of_call, register, roots_of

_OF_THE_HEADER = (
    "countdown", "eta", "root_id", "parent_id", "producer", "connection", "add_to_parent", "shadow",
)  # fmt: skip
"""Options of a call that concern the header only."""
_OF_THE_BODY = (
    "task_id", "link", "link_error", "chain", "group_id", "group_index", "chord", "replaced_task_nesting",
)  # fmt: skip
"""Options of a call that concern the body only."""


@register("chord")
class chord(Signature[Any]):
    """`chord(header, body)`, or `chord(header)(body)`.

    The body gets the list of the header's values. If a header task fails, the body fails with `ChordError`.

    Args:
        header: signatures; a group, list or generator.
        body: signature that runs afterwards.
        args: arguments for every task of the header.
        options: options for all.
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        members = members_of(header, app).clone()
        own_body = None if body is None else as_signature(body, app).clone()
        if app is None:
            app = members._app if members._app is not None or own_body is None else own_body._app
        parts = {"kwargs": dict(kwargs or {}), "header": members, "body": own_body}
        super().__init__(task, args, parts, options, subtask_type="chord", app=app)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Self:
        """From the wire."""
        parts = dict(value["kwargs"])
        header, body = parts.pop("header"), parts.pop("body", None)
        own = parts.pop("kwargs", None)
        found = cls(header, body, value.get("task", "celery.chord"), value.get("args"), own, app=app)
        found["options"] = dict(value.get("options") or {})
        found.kwargs.update(parts)
        found["immutable"] = bool(value.get("immutable"))
        return found

    @property
    def tasks(self) -> group:
        """The header."""
        found: group = self.kwargs["header"]
        return found

    @property
    def body(self) -> Signature[Any]:
        """The task that runs afterwards."""
        found: Signature[Any] = self.kwargs["body"]
        return found

    @body.setter
    def body(self, body: Any) -> None:
        self.kwargs["body"] = as_signature(body, self._app)

    @property
    def id(self) -> str | None:
        """Id of the body, once frozen."""
        return None if self.kwargs["body"] is None else self.body.id

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Self:
        merged_args, _, merged_options = self._merge(args, None, options)
        copy = self._copy()
        copy["args"], copy["options"] = merged_args, dict(merged_options)
        own = dict(self.kwargs.get("kwargs") or {})
        if kwargs and not self.immutable:
            own.update(kwargs)
        body = self.kwargs["body"]
        copy["kwargs"] = {
            **self.kwargs,
            "kwargs": own,
            "header": self.tasks.clone(),
            "body": None if body is None else body.clone(),
        }
        return copy

    def link(self, callback: Any) -> Any:
        """Send `callback` once after the body."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Call `errback` once if the header or the body fails.

        With `task_allow_error_cb_on_chord_header` it is linked to every header task as well.
        """
        if self.app.conf.task_allow_error_cb_on_chord_header:
            self.tasks.link_error(errback)
        self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Ignore arguments of calls, or not: those go to the header, and the header's values to the body."""
        super().set_immutable(immutable)
        self.tasks.set_immutable(immutable)

    def last_group_id(self) -> str | None:
        return self.body.last_group_id()

    def leaf_count(self) -> int:
        return self.body.leaf_count()

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
        """Fix all ids; returns the body's result, whose parent is the header's."""
        header_result = self.tasks.freeze(parent_id=parent_id, root_id=root_id)
        self.options["task_id"] = header_result.id
        result = self.body.freeze(
            _id, group_id=group_id, chord=chord, root_id=root_id, group_index=group_index
        )
        roots_of(result).parent = header_result
        return result

    _freeze = freeze

    def _prepared(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> tuple[Self, dict[str, Any]]:
        """A copy with everything of this call in its place, and the options for the header's tasks."""
        copy = self.clone(args, kwargs)
        given = {**options_of_call(copy.options, "task_id"), **options_of_call(options)}
        header, body = copy.tasks, copy.body
        header["args"] = (*copy.args, *header.args)
        header.kwargs.update(copy.kwargs["kwargs"])
        copy["args"], copy.kwargs["kwargs"], copy["options"] = (), {}, {}
        for name, value in given.items():
            if name in ("link", "link_error"):
                for link in _as_list(value):
                    (body.link if name == "link" else body.link_error)(link)
            elif name == "chain":
                body.options["chain"] = [*value, *(body.options.get("chain") or ())]
            elif name in ("task_id", "group_id", "chord", "group_index") or name in _OF_THE_HEADER:
                continue
            else:
                body.set(**{name: value})
        return copy, options_of_call(given, *_OF_THE_BODY)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        add_to_parent: bool = True,
        **options: Any,
    ) -> Any:
        """Send the header; returns the result of the body.

        Raises:
            ImproperlyConfigured: the result store cannot do chords.
            TypeError: there is no body.
        """
        if self.kwargs["body"] is None:
            raise TypeError("this chord has no body: chord(header, body), or chord(header)(body)")
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        copy, header_options = self._prepared(args, kwargs, options)
        header, body = copy.tasks, copy.body
        size = header.leaf_count()
        header_result = header.freeze()
        outer = options_of_call({name: options.get(name) for name in ("group_id", "chord", "group_index")})
        outer.setdefault("group_id", body.last_group_id() or header_result.id)
        result = body.freeze(options.get("task_id"), **outer)
        roots_of(result).parent = header_result
        if not size:
            origin = {name: options[name] for name in ("root_id", "parent_id") if options.get(name)}
            body.apply_async(([],), **origin)
        else:
            header.freeze(group_id=header_result.id, chord=body)
            nested = any(isinstance(member, GroupResult) for member in header_result.results)
            app.backend.start_chord(header_result.id, body, size, header_result, nested)
            header.send(header_result.id, None, None, header_options)
        if add_to_parent:
            _add_to_parent(result)
        return result

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run the header here, then the body; returns the body's `EagerResult`."""
        copy, header_options = self._prepared(args, kwargs, options)
        header_result = copy.tasks.apply(**header_options)
        for leaf in leaves_of(header_result):
            if leaf.state in states.PROPAGATE_STATES:
                return copy._failed_eagerly(leaf, header_result, options.get("task_id"))
        own = options_of_call({"task_id": options.get("task_id"), "throw": options.get("throw")})
        result = copy.body.apply((header_result.get(disable_sync_subtasks=False),), **own)
        roots_of(result).parent = header_result
        return result

    def _failed_eagerly(self, leaf: Any, header_result: Any, task_id: str | None) -> Any:
        from .failing import fail_eagerly

        error = dependency_error(leaf.id, leaf.result)
        body_id = task_id or self.body.id or str(uuid4())
        fail_eagerly(self.body, body_id, error)
        return EagerResult(
            body_id, error, states.FAILURE, leaf.traceback, self.body.task, app=self.app, parent=header_result
        )

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send the header, with `body` if the chord has none."""
        copy = self.clone()
        if body is not None:
            copy.body = as_signature(body, self._app).clone()
        return copy.apply_async(**options)

    def __len__(self) -> int:
        return self.tasks.leaf_count()

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        body = self.kwargs["body"]
        if body is None:
            return f"<chord without body: {self.tasks!r}>"
        if isinstance(body, (group, chord)) or not hasattr(body, "reprcall"):
            return f"%{body!r}({self.tasks!r})"
        return f"%{body.reprcall(self.tasks)}"


_add_to_parent = add_to_parent
