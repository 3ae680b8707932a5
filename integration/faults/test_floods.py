"""Tasks that fail by the thousand, are huge, cannot be told of, or end their process: final states, a living worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from project import Project

BROKERS = ("embedded", "redis")


def finals(results: list[Any], timeout: float = 60) -> list[str]:
    for result in results:
        result.get(timeout=timeout, propagate=False)
    return [result.state for result in results]


@pytest.mark.parametrize("broker", BROKERS)
def test_a_thousand_failures(make_project: Callable[..., Project], broker: str) -> None:
    fail_many(make_project(broker), 1000)


@pytest.mark.soak
@pytest.mark.parametrize("broker", BROKERS)
def test_many_failures(make_project: Callable[..., Project], broker: str) -> None:
    fail_many(make_project(broker), 5000)


def fail_many(project: Project, count: int) -> None:
    worker = project.start_worker().wait_ready()
    fail = project.task("fail")
    with project.app.bulk():
        results = [fail.delay(number) for number in range(count)]
    assert set(finals(results)) == {"FAILURE"}
    assert [str(result.result) for result in results] == [f"number {number}" for number in range(count)]
    assert project.task("add").delay(1, 1).get(timeout=20) == 2
    assert worker.stop() == 0


@pytest.mark.parametrize("broker", BROKERS)
def test_tasks_that_overdo_it(make_project: Callable[..., Project], broker: str) -> None:
    project = make_project(broker)
    worker = project.start_worker("--max-memory-per-child", "200000").wait_ready()
    task = project.task
    with project.app.bulk():
        nasty = {kind: task("nasty").delay(kind) for kind in project.nasty}
        big = [task("much").delay(1 << 20) for _ in range(20)]
        deep = [task("deep").delay() for _ in range(5)]
        chatter = [task("chatter").delay(1 << 20) for _ in range(3)]
        swell = [task("swell").delay(300) for _ in range(3)]
        leave = [task("leave").delay(code) for code in (0, 1, 7)]
        after = [task("add").delay(number, 1) for number in range(50)]

    states = dict(zip(nasty, finals(list(nasty.values())), strict=True))
    assert set(states.values()) == {"FAILURE"}, states
    assert [len(result.get(timeout=60)) for result in big] == [1 << 20] * 20
    assert set(finals(deep)) == {"FAILURE"}
    assert {type(result.result).__name__ for result in deep} == {"RecursionError"}
    assert set(finals(chatter)) == {"SUCCESS"}
    assert [result.get(timeout=60) for result in swell] == [300 << 20] * 3
    assert set(finals(leave)) == {"FAILURE"}
    assert {type(result.result).__name__ for result in leave} == {"WorkerLostError"}
    assert [result.get(timeout=60) for result in after] == list(range(1, 51))
    assert worker.stop() == 0, worker.log[-3000:]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_exceptions_that_cannot_be_told_of_in_the_process_itself(
    make_project: Callable[..., Project], pool: str
) -> None:
    project = make_project("embedded")
    worker = project.start_worker("-P", pool).wait_ready()
    results = {kind: project.task("nasty").delay(kind) for kind in project.nasty}
    states = dict(zip(results, finals(list(results.values())), strict=True))
    assert set(states.values()) == {"FAILURE"}, states
    assert project.task("add").delay(1, 1).get(timeout=20) == 2
    assert worker.stop() == 0
