"""One turn of the keeper's work over several servers."""

from __future__ import annotations

from collections.abc import Callable

from qbrokers.redis.refusals import is_refused
from qbrokers.redis.wire import CHANNEL_ERRORS, CONNECTION_ERRORS


class Turn:
    """What fails on one server does not hold up the work on the others.

    Args:
        place: Gives the server of a group.

    Attributes:
        failure: The first error.
        failed: Groups on which something failed or was left out.
    """

    def __init__(self, place: Callable[[str], object]) -> None:
        self.failure: BaseException | None = None
        self.failed: set[str] = set()
        self._place = place
        self._away: set[object] = set()

    def attempt(self, group: str, action: Callable[[], object]) -> bool:
        """Do something with a group unless its server has failed in this turn; returns whether it was done."""
        place: object = None
        try:
            place = self._place(group)
            if place not in self._away:
                action()
                return True
        except (*CONNECTION_ERRORS, *CHANNEL_ERRORS) as exc:
            if self.failure is None:
                self.failure = exc
            if isinstance(exc, CONNECTION_ERRORS) and not is_refused(exc):
                self._away.add(place)
        self.failed.add(group)
        return False
