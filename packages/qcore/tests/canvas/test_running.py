"""Workflows that run: in a worker, and eagerly."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from qcore import states
from qcore.canvas import chain, chord, group
from qcore.errors import ChordError


def eventually(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """The condition's value once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "did not come true in time"
        threading.Event().wait(0.005)
    return value


def get(result: Any, **options: Any) -> Any:
    return result.get(timeout=10, **options)


def test_chains(running: Any) -> None:
    add, mul = running.tasks["add"], running.tasks["mul"]
    assert get((add.s(4, 4) | mul.s(8))()) == 64
    assert get((add.s(4) | mul.s(8))(16)) == 160
    assert get((add.s(4, 16) | mul.s(2) | (add.s(4) | mul.s(8)))()) == 352
    result = (add.si(2, 2) | add.si(4, 4) | add.si(8, 8))()
    assert [get(result), get(result.parent), get(result.parent.parent)] == [16, 8, 4]


def test_groups(running: Any) -> None:
    add = running.tasks["add"]
    assert get(group(add.s(i, i) for i in range(10))()) == [2 * i for i in range(10)]
    assert get(group(add.s(i) for i in range(10))(10)) == list(range(10, 20))
    result = (add.s(4, 4) | group(add.si(i, i) for i in range(3)))()
    assert (get(result), get(result.parent)) == ([0, 2, 4], 8)
    assert result.completed_count() == 3


def test_chords(running: Any) -> None:
    add, xsum, same = running.tasks["add"], running.tasks["xsum"], running.tasks["same"]
    assert get(chord((add.s(i, i) for i in range(10)), xsum.s())()) == 90
    assert get(chord(add.s(i, i) for i in range(100))(xsum.s())) == 9900
    assert get((group(add.s(i, i) for i in range(10)) | xsum.s())()) == 90
    assert get(chord([add.s(1, 1)], same.si("fixed"))()) == "fixed"
    assert get(chord([], same.s())()) == []
    assert get(chord([add.s(1), add.s(2)], xsum.s()).apply_async((10,))) == 23


def test_empty_workflows(running: Any) -> None:
    assert get(group()()) == []
    assert chain()() is None


def test_map_starmap_and_chunks(running: Any) -> None:
    assert ~running.tasks["xsum"].map([range(10), range(100)]) == [45, 4950]
    assert ~running.tasks["add"].starmap(zip(range(3), range(3), strict=True)) == [0, 2, 4]
    assert get(running.tasks["add"].chunks([(i, i) for i in range(5)], 2)()) == [[0, 2], [4, 6], [8]]


def test_a_failed_step_fails_the_rest_of_a_chain(running: Any) -> None:
    add, fail = running.tasks["add"], running.tasks["fail"]
    result = (add.s(1, 1) | fail.s() | add.s(3) | group(add.s(1), add.s(2)) | running.tasks["xsum"].s())()
    with pytest.raises(LookupError, match="broken"):
        get(result)
    assert result.state == states.FAILURE


def test_a_failed_header_fails_the_body_and_calls_its_errback_once(running: Any) -> None:
    add, fail, xsum = running.tasks["add"], running.tasks["fail"], running.tasks["xsum"]
    body = xsum.s().on_error(running.tasks["on_error"].s())
    result = chord([add.s(1, 1), fail.s(), fail.s()], body)()
    with pytest.raises(LookupError, match="broken"):
        get(result)
    with pytest.raises(ChordError, match=r"Dependency .* raised LookupError\('broken'\)"):
        get(result, follow_parents=False) if hasattr(result.backend, "_records") else result.maybe_throw()
    assert running.errors == [(result.id, "ChordError")]


def test_an_errback_gets_request_exception_and_traceback(running: Any) -> None:
    sig = running.tasks["fail"].s().on_error(running.tasks["on_error"].s())
    result = sig.delay()
    with pytest.raises(LookupError):
        get(result)
    assert eventually(lambda: running.errors) == [(result.id, "LookupError")]


def test_a_bound_errback_is_sent_with_the_id(working: Any) -> None:
    result = working.tasks["fail"].s().on_error(working.tasks["on_error_by_id"].s()).delay()
    with pytest.raises(LookupError):
        get(result)
    assert eventually(lambda: working.errors) == [(result.id, "by id")]


def test_a_group_as_body_fails_as_a_whole(working: Any) -> None:
    add, fail, same = working.tasks["add"], working.tasks["fail"], working.tasks["same"]
    result = chord([add.s(1, 1), fail.s()], group(same.s(), same.s()))()
    for member in result.results:
        with pytest.raises(LookupError):
            get(member)


def test_a_failure_inside_a_nested_chord_ends_the_outer_one(working: Any) -> None:
    add, fail, xsum = working.tasks["add"], working.tasks["fail"], working.tasks["xsum"]
    inner = chord([add.s(1, 1), fail.s()], xsum.s())
    result = chord([inner, add.s(2, 2), add.s(1, 1) | add.s(1)], xsum.s())()
    with pytest.raises(ChordError):
        get(result, follow_parents=False)


def test_callbacks_get_the_result(working: Any) -> None:
    add, mul = working.tasks["add"], working.tasks["mul"]
    result = add.apply_async((2, 2), link=mul.s(16))
    assert get(result) == 4
    eventually(lambda: result.children and result.children[0].ready())
    assert [value for _, value in result.collect()] == [4, 64]
    assert result.get_leaf() == 64


def test_the_graph_of_a_chain(working: Any) -> None:
    add, mul = working.tasks["add"], working.tasks["mul"]
    result = chain(add.s(4, 4), mul.s(8), mul.s(10))()
    assert get(result) == 640
    first = result.parent.parent
    assert str(first.graph).splitlines() == [
        f"{result.parent}(1)",
        f"    {result}(0)",
        f"{first}(2)",
        f"    {result.parent}(1)",
        f"        {result}(0)",
    ]


def test_stamps_reach_every_task_and_its_record(working: Any) -> None:
    add, xsum = working.tasks["add"], working.tasks["xsum"]
    flow = add.s(1, 1) | group(add.s(1), add.s(2)) | xsum.s()
    result = flow.stamp(lot="x7").apply_async()
    assert get(result) == 7
    for leaf in [result, *result.parent.results, result.parent.parent]:
        assert leaf.stamps == {"lot": "x7"}


def test_a_saved_group_is_restored(working: Any) -> None:
    add = working.tasks["add"]
    result = group(add.s(1, 1), add.s(2, 2))()
    result.save()
    from qcore.results import GroupResult

    again = GroupResult.restore(result.id, app=working)
    assert again == result
    assert get(again) == [2, 4]


def test_task_replace(working: Any) -> None:
    add, same = working.tasks["add"], working.tasks["same"]

    @working.task(name="swap", bind=True, shared=False)
    def swap(self: Any, kind: str) -> Any:
        if kind == "task":
            return self.replace(add.s(20, 22))
        if kind == "chain":
            return self.replace(add.s(1, 1) | add.s(40))
        return self.replace(group(add.s(1, 1), add.s(2, 2)))

    assert get(swap.delay("task")) == 42
    assert get(swap.delay("chain")) == 42
    assert get(swap.delay("group")) == [2, 4]
    assert get((swap.s("chain") | add.s(1))()) == 43
    assert get(chord([swap.s("task"), swap.s("group"), add.s(0, 0)], same.s())()) == [42, [2, 4], 0]


def test_a_large_group_comes_back_quickly(working: Any) -> None:
    add = working.tasks["add"]
    result = group(add.s(i, 1) for i in range(2000))()
    assert get(result) == list(range(1, 2001))
