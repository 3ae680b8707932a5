"""Publisher confirms: which published messages the broker has not answered for yet.

Every message published on a channel in confirm mode has a number. The broker acknowledges it when it has taken
responsibility (written to disk or to a majority, for persistent messages), or refuses it; it answers for many at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from attrs import define, field

Answered = Callable[[bool], object]
"""Called once with whether the broker took the message."""


class Returned(NamedTuple):
    """A mandatory message that no queue takes."""

    name: str
    reason: str
    code: int


@define
class Batch:
    """Messages that one caller waits for."""

    size: int
    open: int = 0
    refused: list[str] = field(factory=list)

    def expect(self, name: str) -> Answered:
        """What to call for one of the messages."""
        self.open += 1

        def answered(taken: bool) -> None:
            self.open -= 1
            if not taken:
                self.refused.append(name)

        return answered


class Confirms:
    """The open numbers of one channel."""

    def __init__(self) -> None:
        self.selected = False
        self.returned: list[Returned] = []
        self._next = 1
        self._open: dict[int, Answered | None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def published(self, answered: Answered | None) -> None:
        """One more message was published; None when nobody waits for it."""
        self._open[self._next] = answered
        self._next += 1

    def answer(self, number: int, multiple: bool, taken: bool) -> None:
        """The broker has answered for a number, or for all up to it."""
        numbers = [number] if not multiple else [each for each in self._open if each <= number]
        for each in numbers:
            answered = self._open.pop(each, None)
            if answered is not None:
                answered(taken)

    def reset(self) -> None:
        """The channel is new; what was open stays unanswered."""
        self.selected = False
        self.returned.clear()
        self._next = 1
        self._open.clear()
