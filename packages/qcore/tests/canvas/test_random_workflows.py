"""Random workflows, compared with an interpreter that knows only what the parts mean."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qcore.app import App
from qcore.canvas import Signature, chain, chord, group
from qcore.testing.inline import InlineWorker

NOTHING = object()

tasks = st.tuples(st.just("task"), st.integers(0, 99), st.booleans())
workflows = st.recursive(
    tasks,
    lambda inner: st.one_of(
        st.tuples(st.just("chain"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("group"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("chord"), st.lists(inner, min_size=1, max_size=3), inner),
    ),
    max_leaves=9,
)


def value_of(spec: Any, given_value: Any = NOTHING) -> Any:
    """What the workflow's result must be."""
    kind = spec[0]
    if kind == "task":
        _, tag, immutable = spec
        return [tag] if immutable or given_value is NOTHING else [given_value, tag]
    if kind == "group":
        return [value_of(member, given_value) for member in flat(spec)]
    if kind == "chord":
        header = [value_of(member, given_value) for member in flat(("group", spec[1]))]
        return value_of(spec[2], header)
    value = given_value
    for part in spec[1]:
        members = flat(part) if part[0] == "group" else []
        value = value_of(members[0] if len(members) == 1 else part, value)
    return value


def flat(spec: Any) -> list[Any]:
    """Members of a group, those of groups among them included."""
    return [found for member in spec[1] for found in (flat(member) if member[0] == "group" else [member])]


def build(spec: Any, step: Any) -> Signature[Any]:
    kind = spec[0]
    if kind == "task":
        return step.si(spec[1]) if spec[2] else step.s(spec[1])
    if kind == "group":
        return group([build(member, step) for member in spec[1]])
    if kind == "chord":
        return chord([build(member, step) for member in spec[1]], build(spec[2], step))
    return chain(*[build(part, step) for part in spec[1]])


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    app = App("random", broker="memory://", backend="memory://", task_default_queue=uuid4().hex)

    @app.task(name="step", shared=False)
    def step(*args: Any) -> Any:
        return list(args)

    with InlineWorker(app):
        yield app
    app.close()


many = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate),
)


@many
@given(spec=workflows)
def test_a_workflow_gives_what_its_parts_mean(app: Any, spec: Any) -> None:
    result = build(spec, app.tasks["step"]).apply_async()
    assert result.get(timeout=3) == value_of(spec)


@many
@given(spec=workflows)
def test_an_eager_workflow_gives_the_same(app: Any, spec: Any) -> None:
    assert build(spec, app.tasks["step"]).apply().get() == value_of(spec)


@many
@given(spec=workflows)
def test_a_workflow_survives_json(app: Any, spec: Any) -> None:
    signature = build(spec, app.tasks["step"])
    again = app.signature(json.loads(json.dumps(signature)))
    assert type(again) is type(signature)
    assert json.dumps(again) == json.dumps(signature)
    assert again.apply().get() == value_of(spec)


@many
@given(spec=workflows, more=tasks)
def test_a_pipe_passes_the_value_on(app: Any, spec: Any, more: Any) -> None:
    step = app.tasks["step"]
    result = (build(spec, step) | build(more, step)).apply_async()
    expected = value_of(more, value_of(spec))
    assert result.get(timeout=3) == expected
