"""One task that calls another for every element: map, starmap; a long list cut into such tasks: chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from .signatures import Signature, as_signature, register


class _Mapping(Signature[Any]):
    """Base of map and starmap.

    Args:
        task: signature of the task that is called.
        it: elements; a generator is read at once, and ranges among them become lists, which can be sent.
    """

    TASK = ""
    KIND = ""

    def __init__(self, task: Any, it: Iterable[Any], app: Any = None, **options: Any) -> None:
        member = as_signature(task, app)
        super().__init__(
            self.TASK,
            (),
            {"task": member, "it": [list(item) if isinstance(item, range) else item for item in it]},
            options,
            subtask_type=self.KIND,
            immutable=True,
            app=app if app is not None else member._app,
        )

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Self:
        """From the wire."""
        found = cls(value["kwargs"]["task"], value["kwargs"]["it"], app=app, **value.get("options", {}))
        found["args"] = tuple(value.get("args") or ())
        found["immutable"] = bool(value.get("immutable"))
        return found

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the one task; it is routed as the task that it calls."""
        member = self.kwargs["task"]
        return super().apply_async(args, kwargs, route_name=route_name or member["task"], **options)


@register("map")
class xmap(_Mapping):
    """`[task(x) for x in it]` in one task."""

    TASK = "celery.map"
    KIND = "map"

    def __repr__(self) -> str:
        return f"[{self.kwargs['task']['task']}(x) for x in {self.kwargs['it']!r}]"


@register("starmap")
class xstarmap(_Mapping):
    """`[task(*x) for x in it]` in one task."""

    TASK = "celery.starmap"
    KIND = "starmap"

    def __repr__(self) -> str:
        return f"[{self.kwargs['task']['task']}(*x) for x in {self.kwargs['it']!r}]"


@register("chunks")
class chunks(Signature[Any]):
    """A long list of argument tuples, cut into starmap tasks of `n` calls each.

    Args:
        task: signature of the task that is called.
        it: argument tuples; a generator is read at once.
        n: calls in each part.

    Raises:
        ValueError: `n` is less than 1.
    """

    def __init__(self, task: Any, it: Iterable[Any], n: int, app: Any = None, **options: Any) -> None:
        if n < 1:
            raise ValueError(f"chunks of {n} calls are not possible: n must be at least 1")
        member = as_signature(task, app)
        super().__init__(
            "celery.chunks",
            (),
            {"task": member, "it": list(it), "n": n},
            options,
            subtask_type="chunks",
            immutable=True,
            app=app if app is not None else member._app,
        )

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], app: Any = None) -> Self:
        """From the wire."""
        kwargs = value["kwargs"]
        return cls(kwargs["task"], kwargs["it"], kwargs["n"], app=app, **value.get("options", {}))

    def group(self) -> Any:
        """The parts as a group of starmap tasks."""
        task = self.kwargs["task"]
        parts = [xstarmap(task, part, app=self._app) for part in batched(self.kwargs["it"], self.kwargs["n"])]
        return self.TYPES["group"](parts, app=self._app)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the parts; returns the `GroupResult`."""
        return self.group().apply_async(args, kwargs, **{**self.options, **options})

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run the parts here."""
        return self.group().apply(args, kwargs, **{**self.options, **options})

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send the parts."""
        return self.apply_async(args, **options)

    def leaf_count(self) -> int:
        return int(self.group().leaf_count())


def batched(items: Sequence[Any], n: int) -> list[list[Any]]:
    """`items` in lists of `n`, the last one shorter."""
    return [list(items[start : start + n]) for start in range(0, len(items), n)]
