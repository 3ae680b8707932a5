"""The errors of the Redis transport that are not redis-py's.

NotReplicated (QBrokersError, kombu.exceptions.OperationalError)    too few replicas have what was published
"""

from __future__ import annotations

from kombu.exceptions import OperationalError

from qbrokers.errors import QBrokersError


class NotReplicated(QBrokersError, OperationalError):
    """What was published is in its queue, but fewer replicas than `wait_replicas` have confirmed it in time.

    It is delivered unless the master is lost before a replica has it. Publishing it again may put it there
    twice; kombu does not do so by itself.
    """

    def __init__(self, wanted: int, confirmed: int, timeout_seconds: float) -> None:
        self.wanted = wanted
        self.confirmed = confirmed
        self.timeout_seconds = timeout_seconds
        super().__init__(
            f"published, but only {confirmed} of {wanted} replicas confirmed it within {timeout_seconds:g} s "
            "(transport options wait_replicas, wait_timeout); it may be lost if the master fails now. Look at the "
            "replicas with INFO replication"
        )

    def __reduce__(self) -> tuple[type[NotReplicated], tuple[int, int, float]]:
        return type(self), (self.wanted, self.confirmed, self.timeout_seconds)
