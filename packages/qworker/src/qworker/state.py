"""What one worker knows at run time: its requests, counts, revocations and whether it has to stop."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
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


class WorkerState:
    """One instance per worker; touched by the loop's thread only, except `should_stop` and `should_terminate`.

    Attributes:
        by_tag: Requests that are not done, by their tag in the pool.
        requests: The same by task id. Two deliveries of one id share a place here.
        revoked: Ids that must not run.
        revoked_stamps: Stamp name -> values whose tasks must not run.
        successful: Ids of late-ack tasks that succeeded (for `worker_deduplicate_successful_tasks`).
        unacknowledged: Ids that ended while their message could not be acknowledged, because its connection was
            lost. Their redelivery is acknowledged without another run.
        returned: Ids of messages that went back because their connection was lost, while nothing had died.
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
        self.unacknowledged = LimitedSet(maxlen=SUCCESSFUL_MAX, expires=SUCCESSFUL_EXPIRES_SECONDS)
        self.returned = LimitedSet(maxlen=SUCCESSFUL_MAX, expires=SUCCESSFUL_EXPIRES_SECONDS)
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
