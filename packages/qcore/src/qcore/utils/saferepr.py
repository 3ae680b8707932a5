"""`repr` with limits: of length, of nesting, and of patience with objects that cannot show themselves.

The result reads like `repr` and is never longer than asked for. Large values are not represented as a whole
first, so the cost does not grow with the size of the value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_MARK = "..."
_SCALARS = (int, float, bool, type(None))
_OPEN = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}


def saferepr(value: object, maxlen: int | None = 1024, maxlevels: int = 3) -> str:
    """Text form of `value`.

    Args:
        value: anything; an object whose `__repr__` raises is shown as `<unrepresentable ...>`.
        maxlen: longest text; None for no limit.
        maxlevels: containers deeper than this are shown as `...`.
    """
    limit = maxlen if maxlen is not None else 1 << 60
    parts: list[str] = []
    _Writer(parts, limit, maxlevels).write(value, 0)
    text = "".join(parts)
    return text if len(text) <= limit else text[: max(limit - len(_MARK), 0)] + _MARK[:limit]


class _Writer:
    def __init__(self, parts: list[str], budget: int, maxlevels: int) -> None:
        self.parts = parts
        self.budget = budget
        self.maxlevels = maxlevels
        self.open: set[int] = set()

    def _emit(self, text: str) -> None:
        self.parts.append(text)
        self.budget -= len(text)

    def write(self, value: object, level: int) -> None:
        kind = type(value)
        if kind in _SCALARS:
            self._emit(_scalar(value))
        elif isinstance(value, (str, bytes, bytearray)):
            self._emit(_quoted(value, self.budget))
        elif kind in _OPEN:
            self._container(value, level)
        else:
            self._emit(_foreign(value, self.budget))

    def _container(self, value: object, level: int) -> None:
        assert isinstance(value, (list, tuple, set, frozenset, dict))
        if not value:
            self._emit(repr(value))
            return
        opening, closing = _OPEN[type(value)]
        if id(value) in self.open:
            self._emit(f"<recursion on {type(value).__name__}>")
        elif level > self.maxlevels:
            self._emit(_MARK)
        else:
            self.open.add(id(value))
            self._emit(opening)
            self._items(value, level)
            self._emit(",)" if isinstance(value, tuple) and len(value) == 1 else closing)
            self.open.discard(id(value))

    def _items(self, value: Iterable[Any], level: int) -> None:
        pairs = isinstance(value, dict)
        for index, item in enumerate(value.items() if isinstance(value, dict) else value):
            if index:
                self._emit(", ")
            if self.budget <= len(_MARK):
                self._emit(_MARK)
                return
            if pairs:
                key, content = item
                self.write(key, level + 1)
                self._emit(": ")
                self.write(content, level + 1)
            else:
                self.write(item, level + 1)


def _scalar(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # an int with more digits than the interpreter converts
        return "<int too large to show>"


def _quoted(value: str | bytes | bytearray, budget: int) -> str:
    if len(value) + 2 <= budget:
        return repr(value)
    text = repr(value[: max(budget, 0)])
    return f"{text[:-1]}{_MARK}{text[-1]}"


def _foreign(value: object, budget: int) -> str:
    try:
        text = repr(value)
    except Exception as exc:  # noqa: BLE001 - foreign code; the text then says what it raised
        return f"<unrepresentable {type(value).__name__}: {type(exc).__name__}: {_text(exc)}>"
    return text if len(text) <= budget else f"{text[: max(budget, 0)]}{_MARK}"


def _text(exc: Exception) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - foreign code; only detail is lost
        return "?"
