import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from qcore import states
from qcore.app import App
from qcore.backend.record import ResultRecord
from qcore.errors import ImproperlyConfigured, IncompleteStream, TaskRevokedError, TimeoutError
from qcore.request import Context
from qcore.results import (
    AsyncResult,
    EagerResult,
    GroupResult,
    ResultSet,
    allow_join_result,
    denied_join_result,
    result_from_tuple,
)


@pytest.fixture
def app() -> Iterator[Any]:
    app = App("results", broker="memory://", backend="memory://")
    yield app
    app.close()


def store(app: Any, task_id: str, result: Any = None, state: str = states.SUCCESS, **fields: Any) -> Any:
    app.backend.store(ResultRecord.of(Context(id=task_id, **fields), state, result))
    app.backend.flush()
    return app.AsyncResult(task_id)


def test_a_result_needs_an_id(app: Any) -> None:
    with pytest.raises(ValueError, match="id"):
        AsyncResult(None)  # type: ignore[arg-type]


def test_results_are_compared_by_id(app: Any) -> None:
    first, second = app.AsyncResult("a"), app.AsyncResult("a")
    assert first == second == "a"
    assert {first, second} == {first}
    assert first != app.AsyncResult("b")
    assert (str(first), repr(first)) == ("a", "<AsyncResult: a>")
    assert copy.copy(first) == first
    assert pickle.loads(pickle.dumps(first)) == first


def test_tuples_go_both_ways(app: Any) -> None:
    chained = app.AsyncResult("c", parent=app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")]))
    assert chained.as_tuple() == (("c", (("g", None), [(("a", None), None), (("b", None), None)])), None)
    again = result_from_tuple(chained.as_tuple(), app)
    assert again == chained
    assert again.parent == chained.parent
    assert again.as_list() == ["c", "g"]
    with pytest.raises(ValueError, match="tuple"):
        result_from_tuple(42, app)


def test_a_ready_record_is_cached(app: Any) -> None:
    result = store(app, "a", 1)
    assert result.get() == 1
    app.backend.forget("a")
    assert result.get() == 1
    assert app.AsyncResult("a").state == states.PENDING


def test_the_failure_of_a_parent_is_raised(app: Any) -> None:
    parent = store(app, "p", LookupError("parent"), states.FAILURE)
    store(app, "c", ValueError("child"), states.FAILURE)
    child = app.AsyncResult("c", parent=parent)
    with pytest.raises(LookupError, match="parent"):
        child.get()
    with pytest.raises(ValueError, match="child"):
        child.get(follow_parents=False)
    assert repr(child.get(propagate=False)) == "ValueError('child')"


def test_the_failure_of_a_parent_ends_the_wait_for_a_child_without_record(app: Any) -> None:
    parent = store(app, "p", LookupError("parent"), states.FAILURE)
    with pytest.raises(LookupError, match="parent"):
        app.AsyncResult("c", parent=parent).get(timeout=10)


def test_an_ignored_result_is_none_at_once(app: Any) -> None:
    result = app.AsyncResult("a")
    result.ignored = True
    assert result.get() is None


def test_waiting_within_a_task_is_refused(app: Any) -> None:
    result = store(app, "a", 1)
    with denied_join_result():
        with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task"):
            result.get()
        with pytest.raises(RuntimeError):
            app.GroupResult("g", [result]).get()
        assert result.get(disable_sync_subtasks=False) == 1
        with allow_join_result():
            assert result.get() == 1


def test_the_callback_gets_id_and_value(app: Any) -> None:
    seen: list[Any] = []
    store(app, "a", 1).get(callback=lambda *args: seen.append(args))
    assert seen == [("a", 1)]


def test_the_remote_traceback_is_shown(app: Any) -> None:
    app.conf.task_remote_tracebacks = True
    app.backend.store(ResultRecord.of(Context(id="a"), states.FAILURE, KeyError("k"), "Traceback over there"))
    with pytest.raises(KeyError) as caught:
        app.AsyncResult("a").get()
    assert "Traceback over there" in str(caught.value.__cause__)


def test_the_graph(app: Any) -> None:
    child = store(app, "child", 2)
    parent_request = Context(id="parent")
    parent_request.children.append(child)
    app.backend.store(ResultRecord.of(parent_request, states.SUCCESS, 1))
    parent = app.AsyncResult("parent")
    assert [(str(node), value) for node, value in parent.collect()] == [("parent", 1), ("child", 2)]
    assert str(parent.graph) == "parent(1)\n    child(0)"
    out = io.StringIO()
    parent.graph.to_dot(out)
    assert '"parent" -> "child";' in out.getvalue()


def test_an_unfinished_graph_is_incomplete(app: Any) -> None:
    result = app.AsyncResult("a")
    with pytest.raises(IncompleteStream):
        list(result.iterdeps())
    assert [node for _, node in result.iterdeps(intermediate=True)] == [result]


def test_a_set_is_a_list_without_duplicates(app: Any) -> None:
    results = ResultSet([app.AsyncResult("a")], app=app)
    results.add(app.AsyncResult("a"))
    results.update([app.AsyncResult("b"), app.AsyncResult("a")])
    assert [str(result) for result in results] == ["a", "b"]
    assert (len(results), results[1]) == (2, "b")
    results.remove("a")
    results.discard("zzz")
    with pytest.raises(KeyError):
        results.remove("zzz")
    results.clear()
    assert not results
    assert GroupResult("g", [], app=app)


def test_what_a_set_tells(app: Any) -> None:
    store(app, "a", 1)
    store(app, "b", ValueError("x"), states.FAILURE)
    results = app.GroupResult("g", [app.AsyncResult(i) for i in "abc"])
    assert (results.ready(), results.waiting(), results.successful(), results.failed()) == (
        False,
        True,
        False,
        True,
    )
    assert results.completed_count() == 1
    with pytest.raises(ValueError, match="x"):
        results.maybe_throw()
    with pytest.raises(TimeoutError):
        results.get(timeout=0.05, propagate=False)
    store(app, "c", 3)
    assert results.ready()
    assert [repr(value) for value in results.get(propagate=False)] == ["1", "ValueError('x')", "3"]
    assert [repr(value) for value in results.join(propagate=False)] == ["1", "ValueError('x')", "3"]
    assert {i: r.status for i, r in results.iter_native()}["b"] == states.FAILURE
    assert repr(results) == "<GroupResult: g [a, b, c]>"


def test_a_set_calls_back_once_all_are_ready(app: Any) -> None:
    results = app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")])
    seen: list[Any] = []
    results.then(seen.append)
    store(app, "a", 1)
    assert seen == []
    store(app, "b", 2)
    assert seen == [results]


def test_on_message_on_a_silent_store_is_an_error(app: Any, tmp_path: Any) -> None:
    silent = App("silent", broker="memory://", backend=f"db+sqlite:///{tmp_path}/r.db", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="on_message"):
        silent.GroupResult("g", [silent.AsyncResult("a")]).join(on_message=print)
    silent.close()


def test_results_are_disabled_without_a_store() -> None:
    app = App("none", broker="memory://")
    with pytest.raises(ImproperlyConfigured, match="result_backend"):
        app.AsyncResult("a").get(timeout=1)
    app.close()


def test_an_eager_result_knows_its_end() -> None:
    good, bad = EagerResult("a", 4, states.SUCCESS), EagerResult("b", KeyError("k"), states.FAILURE)
    assert (good.get(timeout=1), good.ready(), good.state, repr(good)) == (
        4,
        True,
        states.SUCCESS,
        "<EagerResult: a>",
    )
    with pytest.raises(KeyError):
        bad.get()
    good.revoke()
    assert good.state == states.REVOKED
    with pytest.raises(TaskRevokedError):
        good.get()
