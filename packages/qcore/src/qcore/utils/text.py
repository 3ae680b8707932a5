"""Text helpers: masking, shortening, indenting, tables, plurals."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from pprint import pformat

# Greedy up to the last @ before a separator: passwords with unescaped @ or / are hidden as well.
_URL_PASSWORD = re.compile(r"(://[^:@/\s;,]*):([^\s;,]*)@")
_QUERY_SECRET = re.compile(r"(?i)([?&][^=&\s]*(?:pass|secret|token|key|credential)[^=&\s]*=)[^&\s;,]*")


def mask_url(url: str, mask: str = "**") -> str:
    """`url`, or several separated by `;`, with passwords and secret query arguments replaced."""
    return _QUERY_SECRET.sub(rf"\g<1>{mask}", _URL_PASSWORD.sub(rf"\g<1>:{mask}@", url))


def shorten(text: str, limit: int, tail: str = "...") -> str:
    """`text` cut to `limit` characters, `tail` included."""
    return text if len(text) <= limit else text[: max(limit - len(tail), 0)] + tail


def first_line(text: str) -> str:
    """The first line of `text` that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def indent(text: str, by: int = 0, separator: str = "\n") -> str:
    """Each line of `text` indented by `by` spaces."""
    return separator.join(f"{' ' * by}{line}" for line in text.splitlines())


def dedent(text: str) -> str:
    """`text` without its common indentation and surrounding blank lines."""
    return textwrap.dedent(text).strip("\n")


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """`noun` in the number that fits `count`, without the count."""
    return noun if count == 1 else plural or f"{noun}s"


def pretty(value: object, width: int = 80, lines: int | None = None) -> str:
    """`value` laid out over several lines, at most `lines` of them."""
    laid_out = pformat(value, width=width).splitlines()
    if lines is not None and len(laid_out) > lines:
        laid_out = [*laid_out[:lines], "..."]
    return "\n".join(laid_out)


def columns(rows: Iterable[Sequence[str]], gap: int = 2) -> str:
    """Rows of text as aligned columns."""
    table = [tuple(row) for row in rows]
    if not table:
        return ""
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(max(map(len, table)))]
    return "\n".join(
        (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in table
    )


def listing(items: Iterable[str], empty: str = "none") -> str:
    """`a, b, c`; `empty` when there is nothing."""
    return ", ".join(items) or empty
