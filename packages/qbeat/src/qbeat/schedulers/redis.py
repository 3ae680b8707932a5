"""The scheduler for beats on several machines: last runs and the lease to lead are in Redis."""

from __future__ import annotations

from typing import Any

from qbeat.schedulers.persistent import PersistentScheduler, RunStore
from qbeat.schedulers.redis_leader import LEASE_SECONDS, RedisLeader, RedisRuns
from qcore.errors import ImproperlyConfigured

SCHEMES = ("redis://", "rediss://", "unix://")


class RedisScheduler(PersistentScheduler):
    """Entries come from the settings, their last runs from Redis; of all such beats one sends.

    The schedule "file" is a URL (`-s redis://host/0`); without one it is the broker's, when that is Redis.
    Keys begin with `qbeat:<name of the app>`.

    Raises:
        ImproperlyConfigured: There is no URL of a Redis server.
    """

    lease_seconds: float = LEASE_SECONDS
    """How long a leader that vanished keeps the others waiting."""

    @classmethod
    def leader(cls, app: Any, schedule_filename: str | None = None) -> RedisLeader:
        """Of the beats of one app and one Redis, one leads and the others stand by."""
        return RedisLeader(_url(app, schedule_filename), f"qbeat:{app.main or 'app'}", cls.lease_seconds)

    def open_store(self) -> RunStore:
        """The runs in Redis."""
        leader = self.claim
        if not isinstance(leader, RedisLeader):
            leader = self.leader(self.app, self.schedule_filename)
            leader.acquire()
        self.write_errors = leader.errors
        return RedisRuns(leader)


def _url(app: Any, given: str | None) -> str:
    for url in (given, app.conf.broker_write_url, app.conf.broker_url):
        if isinstance(url, str) and url.startswith(SCHEMES):
            return url
    raise ImproperlyConfigured(
        "the redis scheduler needs the URL of a Redis server: give it with -s redis://host/0"
    )
