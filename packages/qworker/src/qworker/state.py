"""What one worker knows at run time: its requests, counts, revocations and whether it has to stop."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qworker.revoked import (
    REVOKE_EXPIRES_SECONDS,
    REVOKES_MAX,
    SUCCESSFUL_EXPIRES_SECONDS,
    SUCCESSFUL_MAX,
    LimitedSet,
)

if TYPE_CHECKING:
    from qworker.request import Request

RESERVED = "reserved"
SCHEDULED = "scheduled"
ACTIVE = "active"

UNACKNOWLEDGED_MAX = 20_000
# As many acknowledgements can be on their way as the broker hands out messages without one; when it crashes, it
# forgets those of the last seconds as well.
RECENT_MAX = 10_000
# Half-open connections are found out sooner.
RECENT_SECONDS = 60.0

Run = tuple[str, int, int]
"""Task id, number of the retry, depth of the replacement: what tells the messages of one task id apart."""


def run_of(headers: Mapping[str, Any]) -> Run:
    """The run that a message with these headers asks for."""
    return headers["id"], headers.get("retries") or 0, headers.get("replaced_task_nesting") or 0


class RecentRuns:
    """Runs whose messages were acknowledged of late. Nobody tells whether an acknowledgement of AMQP has arrived.

    Args:
        clock: Monotonic seconds.
    """

    __slots__ = ("_clock", "_runs")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._runs: deque[tuple[float, Run]] = deque(maxlen=RECENT_MAX)

    def add(self, headers: Mapping[str, Any]) -> None:
        """The message of a run is acknowledged."""
        self._runs.append((self._clock(), run_of(headers)))

    def take(self) -> list[Run]:
        """The runs whose acknowledgements may be lost with the connection; they are forgotten here."""
        since = self._clock() - RECENT_SECONDS
        runs = [run for moment, run in self._runs if moment >= since]
        self._runs.clear()
        return runs


class WorkerState:
    """One instance per worker; touched by the loop's thread only, except `should_stop` and `should_terminate`.

    Attributes:
        by_tag: Requests that are not done, by their tag in the pool.
        requests: The same by task id. Two deliveries of one id share a place here.
        revoked: Ids that must not run.
        revoked_stamps: Stamp name -> values whose tasks must not run.
        successful: Ids of late-ack tasks that succeeded (for `worker_deduplicate_successful_tasks`).
        unacknowledged: Runs (see `run_of`) that ended while their message could not be acknowledged, because its
            connection was lost. Their redelivery is acknowledged without another run.
        acknowledged: Runs whose messages were acknowledged of late; None when the broker keeps what a connection has
            acknowledged whatever becomes of that connection.
        returned: Ids of messages that went back because their connection was lost, while nothing had died.
        telling: After a lost connection: consumer tags that have brought a message without the flag `redelivered`. The
            flags before that may come from the loss, or from a crash of the broker, which flags the whole queue. None
            before the first loss: every flag tells of a death.
        total: Task name -> number of tasks accepted.
        clock: The app's logical clock.
        should_stop: Exit code of a warm shutdown that is due, else None.
        should_terminate: Exit code of a cold shutdown that is due, else None.
    """

    def __init__(self, conf: Any = None, clock: Any = None) -> None:
        self.by_tag: dict[int, Request] = {}
        self.requests: dict[str, Request] = {}
        self.revoked = LimitedSet(
            maxlen=REVOKES_MAX if conf is None else conf.worker_revokes_max,
            expires=REVOKE_EXPIRES_SECONDS if conf is None else conf.worker_revoke_expires,
        )
        self.revoked_stamps: dict[str, set[Any]] = {}
        self.successful = LimitedSet(
            maxlen=SUCCESSFUL_MAX if conf is None else conf.worker_successful_max,
            expires=SUCCESSFUL_EXPIRES_SECONDS if conf is None else conf.worker_successful_expires,
        )
        self.unacknowledged = LimitedSet(maxlen=UNACKNOWLEDGED_MAX, expires=SUCCESSFUL_EXPIRES_SECONDS)
        self.acknowledged: RecentRuns | None = None
        self.returned = LimitedSet(maxlen=SUCCESSFUL_MAX, expires=SUCCESSFUL_EXPIRES_SECONDS)
        self.telling: set[Any] | None = None
        self.total: Counter[str] = Counter()
        self.processed = 0
        self.clock = clock
        self.should_stop: int | None = None
        self.should_terminate: int | None = None
        self.next_tag = itertools.count(1).__next__

    @property
    def active(self) -> list[Request]:
        """Requests that run now."""
        return [request for request in self.by_tag.values() if request.phase is ACTIVE]

    @property
    def reserved(self) -> list[Request]:
        """Requests that were received and neither run nor wait for their time."""
        return [request for request in self.by_tag.values() if request.phase is RESERVED]

    @property
    def scheduled(self) -> list[Request]:
        """Requests that wait for their time."""
        return [request for request in self.by_tag.values() if request.phase is SCHEDULED]

    @property
    def active_count(self) -> int:
        """Number of requests that run now."""
        return sum(request.phase is ACTIVE for request in self.by_tag.values())

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self.by_tag.values()))

    def forget(self, request: Request) -> None:
        """Take a request that is done out of the books."""
        self.by_tag.pop(request.tag, None)
        if self.requests.get(request.id) is request:
            del self.requests[request.id]
