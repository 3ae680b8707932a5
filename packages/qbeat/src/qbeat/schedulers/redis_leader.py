"""Beats on several machines: one leads by a lease in Redis, and the runs are kept there for its successor.

The lease is a key with a random token, renewed at a third of its time. A beat sends only while its own clock says
that the lease is good for another second, so a beat that was frozen stands by when it thaws. Runs are written by a
script that asks for the token: a former leader writes nothing.
"""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from qbeat.schedulers.state_file import SavedRun
from qcore.errors import ImproperlyConfigured, MissingPackageError
from qcore.times import make_aware

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
MARGIN_SECONDS = 1.0

# KEYS: lease; ARGV: token, milliseconds. 1 when the lease is this token's now.
_CLAIM = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
# KEYS: lease, hash; ARGV: token, 1 to empty the hash first, then field and value in turns.
_WRITE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then redis.call('DEL', KEYS[2]) end
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
"""
_FIELDS_PER_CALL = 500


class RedisLeader:
    """Leads while its lease in Redis lasts.

    Args:
        url: URL of the Redis server.
        key: Prefix of the keys: `<key>:lease`, `<key>:runs`, `<key>:facts`.
        lease_seconds: How long a leader that vanished keeps the others waiting.

    Raises:
        MissingPackageError: The library redis is not installed.
        ImproperlyConfigured: The URL makes no sense.
    """

    def __init__(self, url: str, key: str = "qbeat", lease_seconds: float = LEASE_SECONDS) -> None:
        self.url = url
        self.key = key
        self.lease_seconds = lease_seconds
        self.retry_seconds = lease_seconds / 5
        self.token = f"{socket.gethostname()}:{uuid.uuid4()}"
        redis = _redis()
        try:
            self.client: Any = redis.Redis.from_url(
                url, decode_responses=True, socket_timeout=lease_seconds / 3
            )
        except ValueError as exc:
            raise ImproperlyConfigured(f"not the URL of a Redis server: {url!r} ({exc})") from exc
        self.errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._good_until = 0.0
        self._renew_at = 0.0

    def holds(self) -> bool:
        """Whether this beat may send now; asks nobody."""
        return time.monotonic() < self._good_until - min(MARGIN_SECONDS, self.lease_seconds / 5)

    def acquire(self) -> bool:
        """Try to lead, or confirm that this beat still does."""
        asked = time.monotonic()
        if asked < self._renew_at and self.holds():
            return True
        try:
            claimed = self.client.eval(
                _CLAIM, 1, f"{self.key}:lease", self.token, int(self.lease_seconds * 1000)
            )
        except self.errors as exc:
            logger.warning("Cannot reach %s for the lease of beat: %r", self.describe(), exc)
            return self.holds()
        if not claimed:
            self._good_until = 0.0
            return False
        self._good_until = asked + self.lease_seconds
        self._renew_at = asked + self.lease_seconds / 3
        return True

    def release(self) -> None:
        """Let another one lead."""
        self._good_until = 0.0
        try:
            self.client.eval(_RELEASE, 1, f"{self.key}:lease", self.token)
        except self.errors as exc:
            logger.warning("The lease of beat ends by itself in %s seconds: %r", self.lease_seconds, exc)
        self.client.close()

    def describe(self) -> str:
        """Where the lease is, for the log."""
        return f"the lease {self.key}:lease in Redis"


class RedisRuns:
    """The runs of all entries in Redis; written only while the lease is the leader's."""

    def __init__(self, leader: RedisLeader) -> None:
        self.leader = leader
        self._lease, self._runs, self._facts = (f"{leader.key}:{part}" for part in ("lease", "runs", "facts"))

    def runs(self) -> dict[str, SavedRun]:
        """All runs that can be understood."""
        found = {}
        for name, text in self.leader.client.hgetall(self._runs).items():
            try:
                moment, count = json.loads(text)
                found[name] = SavedRun(make_aware(datetime.fromisoformat(moment)), int(count))
            except (TypeError, ValueError):
                logger.warning("%s has no good time for %r: it counts from now", self._runs, name)
        return found

    def save(self, name: str, run: SavedRun) -> None:
        """Write one run."""
        self._write(self._runs, False, [name, _text(run)])

    def replace(self, runs: Iterable[tuple[str, SavedRun]]) -> None:
        """Make `runs` all there is."""
        fields = [part for name, run in runs for part in (name, _text(run))]
        for start in range(0, max(len(fields), 1), 2 * _FIELDS_PER_CALL):
            self._write(self._runs, start == 0, fields[start : start + 2 * _FIELDS_PER_CALL])

    def fact(self, name: str) -> str | None:
        """A fact about the schedule."""
        value: str | None = self.leader.client.hget(self._facts, name)
        return value

    def set_fact(self, name: str, value: str) -> None:
        """Remember a fact about the schedule."""
        self._write(self._facts, False, [name, value])

    def _write(self, key: str, empty_first: bool, fields: list[str]) -> None:
        written = self.leader.client.eval(
            _WRITE, 2, self._lease, key, self.leader.token, int(empty_first), *fields
        )
        if not written:
            logger.warning("Another beat leads: %s is its to write", key)

    def checkpoint(self) -> None:
        """Nothing to do: every write is there at once."""

    def close(self) -> None:
        """Nothing to do: the leader closes the connection."""


def _text(run: SavedRun) -> str:
    return json.dumps([make_aware(run.last_run_at).astimezone(UTC).isoformat(), run.total_run_count])


def _redis() -> Any:
    # Optional, and only beats on several machines need it.
    try:
        return import_module("redis")
    except ImportError as exc:
        raise MissingPackageError("the scheduler in Redis", "qbeat[redis]") from exc
