"""The table: one row per measurement, one column per library, and ours as a multiple of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

Rows = Mapping[str, Mapping[str, Sequence[float]]]
"""Measurement -> library -> values of the rounds."""

LOWER_IS_BETTER = ("_ms", "_us", "_mb")


def table(rows: Rows, libraries: Sequence[str]) -> str:
    """Medians, each with its ratio to that of `libraries[0]`: above 1 the latter is better."""
    first, *others = libraries
    head = f"{'':<44}" + f"{first:>12}" + "".join(f"{name:>12}{'ratio':>8}" for name in others)
    lines = [head, "-" * len(head)]
    for row, values in rows.items():
        cells = [f"{row:<44}", _number(values.get(first))]
        for name in others:
            cells += [_number(values.get(name)), _ratio(row, values.get(first), values.get(name))]
        lines.append("".join(cells))
    return "\n".join(lines)


def _number(values: Sequence[float] | None) -> str:
    if not values:
        return f"{'-':>12}"
    value = median(values)
    return f"{value:>12,.0f}" if value >= 100 else f"{value:>12.2f}"


def _ratio(row: str, ours: Sequence[float] | None, theirs: Sequence[float] | None) -> str:
    if not ours or not theirs or not median(ours) or not median(theirs):
        return f"{'-':>8}"
    ratio = median(ours) / median(theirs)
    return f"{1 / ratio if row.endswith(LOWER_IS_BETTER) else ratio:>7.2f}x"
