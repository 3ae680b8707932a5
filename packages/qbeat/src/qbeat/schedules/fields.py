"""The fields of a crontab: text, numbers or names to a set of numbers.

```
field  = part *( "," part )
part   = "*" [ "/" step ] / item [ "-" item [ "/" step ] ]
item   = number / name            mon, monday, jan, january, in any case
```

A range may wrap around: `fri-mon`, `22-2`. Steps count from the start of the range, `*/3` of days of the
month being 1, 4, 7, …
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from attrs import frozen

from qbeat.errors import ParseException

Spec = int | str | Iterable[int]

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_SHORTEST_NAME = 3


@frozen
class Field:
    """One of the five fields: its name, bounds, and names for its values in order."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def expand(self, spec: Spec) -> frozenset[int]:
        """The numbers that `spec` stands for.

        Raises:
            ParseException: It is text that makes no sense, or names a value out of bounds.
            TypeError: It is neither a number, text, nor a collection of numbers.
        """
        if isinstance(spec, str):
            return _parse(self, spec)
        if isinstance(spec, int) and not isinstance(spec, bool):
            return frozenset({self.check(spec)})
        if isinstance(spec, Iterable):
            numbers = frozenset(self.check(number) for number in spec)
            if not numbers:
                raise ParseException(f"{self.name} must not be empty")
            return numbers
        raise TypeError(
            f"{self.name} must be a number, text such as '*/15', or a list of numbers, not {spec!r}"
        )

    def check(self, number: object) -> int:
        """`number`, when it is one and within bounds."""
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"{self.name} must be whole numbers, not {number!r}")
        if not self.low <= number <= self.high:
            hint = " (Sunday is 0)" if self.names is _WEEKDAYS else ""
            raise ParseException(f"{self.name} is {self.low} to {self.high}, not {number}{hint}")
        return number

    def number(self, text: str) -> int:
        """The number that a number's text or a name stands for."""
        text = text.strip()
        if text.isascii() and text.isdigit():
            return self.check(int(text))
        wanted = text.lower()
        for index, name in enumerate(self.names):
            if len(wanted) >= _SHORTEST_NAME and name.startswith(wanted):
                return index + self.low
        raise ParseException(f"{self.name} does not know {text!r}")


MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY_OF_WEEK = Field("day_of_week", 0, 6, _WEEKDAYS)
DAY_OF_MONTH = Field("day_of_month", 1, 31)
MONTH_OF_YEAR = Field("month_of_year", 1, 12, _MONTHS)


@lru_cache(maxsize=1024)
def _parse(field: Field, text: str) -> frozenset[int]:
    numbers: set[int] = set()
    for part in text.split(","):
        numbers.update(_parse_part(field, part.strip(), text))
    return frozenset(numbers)


def _parse_part(field: Field, part: str, text: str) -> list[int]:
    base, slash, step = part.partition("/")
    base = base.strip()
    if not base:
        raise ParseException(f"{field.name} has an empty part in {text!r}")
    if base == "*":
        numbers = list(range(field.low, field.high + 1))
    elif "-" in base.lstrip("-"):
        first, _, last = base.partition("-")
        numbers = _span(field, field.number(first), field.number(last))
    elif slash:
        raise ParseException(
            f"{field.name}: a step needs a range, as in '{base}-{field.high}/{step}', not {part!r}"
        )
    else:
        numbers = [field.number(base)]
    return numbers[:: _step(field, step.strip(), part)] if slash else numbers


def _span(field: Field, first: int, last: int) -> list[int]:
    if first <= last:
        return list(range(first, last + 1))
    return [*range(first, field.high + 1), *range(field.low, last + 1)]


def _step(field: Field, step: str, part: str) -> int:
    if not (step.isascii() and step.isdigit()) or int(step) == 0:
        raise ParseException(f"{field.name}: the step of {part!r} must be a number of 1 or more")
    return int(step)


class crontab_parser:
    """Parses a field with `max_` values from `min_` on; names of days and months are understood.

    Args:
        max_: Number of values.
        min_: The first one.
    """

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        names = {(7, 0): _WEEKDAYS, (12, 1): _MONTHS}.get((max_, min_), ())
        self._field = Field("crontab field", min_, min_ + max_ - 1, names)

    def parse(self, spec: str) -> set[int]:
        """The numbers that `spec` stands for.

        Raises:
            ParseException: It makes no sense.
        """
        return set(self._field.expand(spec))
