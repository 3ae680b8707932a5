from __future__ import annotations

from qworker.state import RECENT_MAX, RECENT_SECONDS, RecentRuns, run_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def headers(task_id: str, **others: int) -> dict[str, object]:
    return {"id": task_id, **others}


def test_a_retry_and_a_replacement_are_other_runs_of_the_same_task_id() -> None:
    first = run_of(headers("a", retries=0))
    assert run_of(headers("a")) == first
    assert run_of(headers("a", retries=1)) != first
    assert run_of(headers("a", replaced_task_nesting=1)) != first


def test_runs_are_taken_once() -> None:
    runs = RecentRuns(Clock())
    runs.add(headers("a"))
    runs.add(headers("b", retries=2))
    assert runs.take() == [("a", 0, 0), ("b", 2, 0)]
    assert runs.take() == []


def test_acknowledgements_of_long_ago_have_arrived() -> None:
    clock = Clock()
    runs = RecentRuns(clock)
    runs.add(headers("old"))
    clock.now += RECENT_SECONDS + 1
    runs.add(headers("new"))
    assert runs.take() == [("new", 0, 0)]


def test_the_memory_is_bounded() -> None:
    runs = RecentRuns(Clock())
    for number in range(RECENT_MAX + 1):
        runs.add(headers(str(number)))
    taken = runs.take()
    assert len(taken) == RECENT_MAX
    assert taken[0] == ("1", 0, 0)
