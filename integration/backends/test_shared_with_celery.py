"""Records that one side writes and the other reads: the same store, ours and Celery's code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from peers import CELERY, peer_python

from qcore import states
from qcore.app import App
from qcore.backend.record import ResultRecord
from qcore.errors import ChordError, TaskRevokedError
from qcore.request import Context
from qcore.results import GroupResult

PRELUDE = """
import json, sys
from types import SimpleNamespace
from celery import Celery
from celery.exceptions import TaskRevokedError
url, argument = sys.argv[1], json.loads(sys.argv[2])
app = Celery("peer", broker="memory://", backend=url, result_extended=True)
"""

READ = """
answer = []
for task_id in argument:
    result = app.AsyncResult(task_id)
    value = result.result
    shown = [type(value).__name__, list(value.args)] if isinstance(value, Exception) else value
    children = [child.id for child in result.children or ()]
    about = [result.name, list(result.args or ()), result.worker]
    answer.append([result.state, shown, result.traceback, *about, children])
print(json.dumps(answer))
"""

WRITE = """
good, bad, gone, group = argument
request = SimpleNamespace(
    task="peer.task", args=[1], kwargs={}, hostname="c@h", retries=1, children=[app.AsyncResult("kid")],
    delivery_info={"routing_key": "celery"}, group=None, parent_id=None, stamps={}, stamped_headers=[],
)
app.backend.store_result(good, {"n": [1, None]}, "SUCCESS", request=request)
app.backend.store_result(bad, LookupError("no", 3), "FAILURE", traceback="Traceback there")
app.backend.store_result(gone, TaskRevokedError("expired"), "REVOKED")
app.GroupResult(group, [app.AsyncResult(good), app.AsyncResult(bad)]).save()
print(json.dumps(None))
"""


@pytest.fixture(scope="session")
def celery_python() -> Path:
    """The newest Celery 5, in an environment of its own."""
    return peer_python("celery", CELERY)


@pytest.fixture(params=["redis", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a store that both sides use."""
    if request.param == "redis":
        found: str = request.getfixturevalue("redis_url")
        return found
    return f"db+sqlite:///{tmp_path / 'results.db'}"


@pytest.fixture
def peer(celery_python: Path, url: str) -> Callable[..., Any]:
    """Runs a piece of Celery code with an argument; what it prints comes back."""

    def run(code: str, argument: Any) -> Any:
        command = [str(celery_python), "-W", "ignore", "-c", PRELUDE + code, url, json.dumps(argument)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_celery_reads_what_we_store(url: str, peer: Callable[..., Any]) -> None:
    app = App("ours", broker="memory://", backend=url, result_extended=True)
    good, bad, chord = (str(uuid4()) for _ in range(3))
    request = Context(id=good, task="our.task", args=[1, 2], kwargs={}, hostname="q@here")
    request.children.append(app.AsyncResult("kid"))
    app.backend.store(ResultRecord.of(request, states.SUCCESS, {"n": [1, None]}, extended=True))
    app.backend.store(
        ResultRecord.of(Context(id=bad), states.FAILURE, LookupError("no", 3), "Traceback here")
    )
    app.backend.store(ResultRecord.of(Context(id=chord), states.FAILURE, ChordError("Dependency x raised y")))
    app.backend.flush()
    app.close()
    assert peer(READ, [good, bad, chord, "nobody"]) == [
        ["SUCCESS", {"n": [1, None]}, None, "our.task", [1, 2], "q@here", ["kid"]],
        ["FAILURE", ["LookupError", ["no", 3]], "Traceback here", None, [], None, []],
        ["FAILURE", ["ChordError", ["Dependency x raised y"]], None, None, [], None, []],
        ["PENDING", None, None, None, [], None, []],
    ]


def test_we_read_what_celery_stores(url: str, peer: Callable[..., Any]) -> None:
    good, bad, gone, group = ids = [str(uuid4()) for _ in range(4)]
    peer(WRITE, ids)
    app = App("ours", broker="memory://", backend=url)
    first = app.AsyncResult(good)
    assert first.get(timeout=5) == {"n": [1, None]}
    assert (first.name, list(first.args), first.worker, first.retries) == ("peer.task", [1], "c@h", 1)
    assert [child.id for child in first.children] == ["kid"]
    assert first.date_done.tzinfo is not None
    failed = app.AsyncResult(bad).get(timeout=5, propagate=False)
    assert (type(failed), failed.args) == (LookupError, ("no", 3))
    assert app.AsyncResult(bad).traceback == "Traceback there"
    with pytest.raises(TaskRevokedError, match="expired"):
        app.AsyncResult(gone).get(timeout=5)
    restored = GroupResult.restore(group, app=app)
    assert restored is not None
    assert [member.id for member in restored.results] == [good, bad]
    app.close()
