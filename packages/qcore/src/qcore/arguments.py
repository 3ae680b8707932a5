"""Check the arguments of a call against a task's function before anything is sent.

The error has the type and the words that Python itself uses for a wrong call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class ArgumentCheck:
    """The arity of one function.

    Args:
        fun: the body of the task.
        bound: its first argument is the task itself and is not counted.
    """

    __slots__ = ("_maximum", "_minimum", "_name", "_signature")

    def __init__(self, fun: Callable[..., Any], *, bound: bool = False) -> None:
        self._name = getattr(fun, "__name__", type(fun).__name__)
        try:
            signature = inspect.signature(fun)
        except (TypeError, ValueError):  # a builtin without a signature: nothing to check against
            self._signature: inspect.Signature | None = None
            return
        parameters = list(signature.parameters.values())
        if bound and parameters and parameters[0].kind != inspect.Parameter.VAR_POSITIONAL:
            parameters = parameters[1:]
        self._signature = inspect.Signature(parameters)
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        needed_by_keyword = any(p.kind == p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self._minimum = sum(1 for p in positional if p.default is p.empty)
        if needed_by_keyword:
            self._minimum = 1 << 30  # never passes the fast test, goes through the full one
        self._maximum = 1 << 30 if any(p.kind == p.VAR_POSITIONAL for p in parameters) else len(positional)

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Return when the call fits.

        Raises:
            TypeError: as Python would raise it for `fun(*args, **kwargs)`.
        """
        if self._signature is None:
            return
        if not kwargs and self._minimum <= len(args) <= self._maximum:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(self._explain(args, kwargs, exc)) from None

    def _explain(self, args: Sequence[Any], kwargs: Mapping[str, Any], exc: TypeError) -> str:
        assert self._signature is not None
        parameters = list(self._signature.parameters.values())
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        takes_any_keyword = any(p.kind == p.VAR_KEYWORD for p in parameters)
        names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        for name in kwargs:
            if name in {p.name for p in positional[: len(args)]} & names:
                return f"{self._name}() got multiple values for argument {name!r}"
            if name not in names and not takes_any_keyword:
                return f"{self._name}() got an unexpected keyword argument {name!r}"
        if len(args) > self._maximum:
            return self._too_many(positional, len(args))
        missing = [p.name for p in positional[len(args) :] if p.default is p.empty and p.name not in kwargs]
        if missing:
            return _missing(self._name, "positional", missing)
        missing = [
            p.name for p in parameters
            if p.kind == p.KEYWORD_ONLY and p.default is p.empty and p.name not in kwargs
        ]  # fmt: skip
        return _missing(self._name, "keyword-only", missing) if missing else f"{self._name}() {exc}"

    def _too_many(self, positional: list[inspect.Parameter], given: int) -> str:
        most = len(positional)
        least = sum(1 for p in positional if p.default is p.empty)
        takes = f"from {least} to {most}" if least != most else str(most)
        plural = "" if takes == "1" else "s"
        were = "was" if given == 1 else "were"
        return f"{self._name}() takes {takes} positional argument{plural} but {given} {were} given"


def _missing(name: str, kind: str, missing: list[str]) -> str:
    quoted = [repr(n) for n in missing]
    if len(quoted) > 1:
        joined = ", ".join(quoted[:-1]) + ("," if len(quoted) > 2 else "") + " and " + quoted[-1]
    else:
        joined = quoted[0]
    plural = "" if len(missing) == 1 else "s"
    return f"{name}() missing {len(missing)} required {kind} argument{plural}: {joined}"
