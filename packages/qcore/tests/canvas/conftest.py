from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from qcore.app import App
from qcore.testing.inline import InlineWorker


def make_app(**settings: Any) -> Any:
    app = App("canvas", broker="memory://", backend="memory://", task_default_queue=uuid4().hex, **settings)
    app.errors = []

    @app.task(name="add", shared=False)
    def add(x: Any, y: Any, debug: bool = False) -> Any:
        return x + y

    @app.task(name="mul", shared=False)
    def mul(x: Any, y: Any) -> Any:
        return x * y

    @app.task(name="xsum", shared=False)
    def xsum(numbers: Any) -> Any:
        return sum(numbers)

    @app.task(name="same", shared=False)
    def same(value: Any = None) -> Any:
        return value

    @app.task(name="step", shared=False)
    def step(*args: Any) -> Any:
        return list(args)

    @app.task(name="fail", shared=False)
    def fail(*args: Any) -> Any:
        raise LookupError("broken")

    @app.task(name="on_error", shared=False)
    def on_error(request: Any, exc: Any, traceback: Any) -> None:
        app.errors.append((request.id, type(exc).__name__))

    @app.task(name="on_error_by_id", shared=False, bind=True)
    def on_error_by_id(self: Any, task_id: str) -> str:
        app.errors.append((task_id, "by id"))
        return task_id

    return app


@pytest.fixture
def app() -> Iterator[Any]:
    app = make_app()
    yield app
    app.close()


@pytest.fixture
def eager_app() -> Iterator[Any]:
    app = make_app(task_always_eager=True)
    yield app
    app.close()


@pytest.fixture(params=["worker", "eager"])
def running(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An app whose tasks run: in a worker, and eagerly."""
    app = make_app(task_always_eager=request.param == "eager", result_extended=True)
    if request.param == "eager":
        yield app
    else:
        with InlineWorker(app):
            yield app
    app.close()


@pytest.fixture
def working() -> Iterator[Any]:
    """An app with a worker."""
    app = make_app(result_extended=True)
    with InlineWorker(app):
        yield app
    app.close()
