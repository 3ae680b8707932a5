from __future__ import annotations

from pathlib import Path

import pytest

from qcore.errors import ImproperlyConfigured
from qworker.revoked import LimitedSet, StateDB
from qworker.state import WorkerState


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_more_than_maxlen_members_push_the_oldest_out() -> None:
    memory = LimitedSet(maxlen=2)
    for item in "abc":
        memory.add(item)
    assert list(memory) == ["b", "c"]


def test_members_expire_but_minlen_of_them_stay() -> None:
    clock = Clock()
    memory = LimitedSet(expires=10, minlen=1, clock=clock)
    memory.add("old")
    memory.add("older", now=900.0)
    clock.now += 60
    memory.purge()
    assert list(memory) == ["old"]


def test_adding_again_makes_young_and_no_double() -> None:
    clock = Clock()
    memory = LimitedSet(maxlen=2, clock=clock)
    memory.add("a")
    memory.add("b")
    clock.now += 1
    memory.add("a")
    memory.add("c")
    assert list(memory) == ["a", "c"]


def test_update_keeps_the_times_of_the_other_set() -> None:
    memory = LimitedSet(clock=Clock())
    memory.update({"a": 1.0, "b": 2.0})
    assert memory.as_dict() == {"a": 1.0, "b": 2.0}


def test_update_takes_plain_lists_too() -> None:
    memory = LimitedSet(clock=Clock())
    memory.update(["a", "b"])
    assert "a" in memory
    assert len(memory) == 2


def test_an_older_time_does_not_replace_a_younger_one() -> None:
    memory = LimitedSet(clock=Clock())
    memory.add("a", now=500.0)
    memory.update({"a": 1.0})
    assert memory.as_dict() == {"a": 500.0}


def test_contradicting_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="minlen"):
        LimitedSet(maxlen=1, minlen=2)


def test_state_file_brings_revocations_back(tmp_path: Path) -> None:
    state = WorkerState()
    database = StateDB(tmp_path / "worker.state", state)
    database.open()
    state.revoked.add("a")
    database.close()

    again = WorkerState()
    reopened = StateDB(tmp_path / "worker.state", again)
    reopened.open()
    assert "a" in again.revoked
    reopened.close()


def test_a_revocation_is_on_disk_before_the_worker_ends(tmp_path: Path) -> None:
    database = StateDB(tmp_path / "worker.state", WorkerState())
    database.open()
    database.save_revoked(["a"])

    again = WorkerState()
    reopened = StateDB(tmp_path / "worker.state", again)
    reopened.open()
    assert "a" in again.revoked
    reopened.close()
    database._connection.close()  # type: ignore[union-attr]


def test_a_foreign_file_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "worker.state"
    path.write_bytes(b"this is not a database at all, but long enough to look at" * 20)
    with pytest.raises(ImproperlyConfigured, match="--statedb"):
        StateDB(path, WorkerState()).open()
