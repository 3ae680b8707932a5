"""What results as messages must do, as tests over any broker: subclass `RPCTests`, give it a fixture `broker_url`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from qcore import states
from qcore.app import App
from qcore.canvas import chord, group
from qcore.errors import ImproperlyConfigured, TimeoutError
from qcore.testing.inline import InlineWorker

_PATIENCE_SECONDS = 20.0


class RPCTests:
    """The suite; the tasks run in a thread of this process, and answer through the broker."""

    @pytest.fixture
    def broker_url(self) -> str:
        return "memory://"

    @pytest.fixture
    def app(self, broker_url: str) -> Iterator[Any]:
        queue = f"rpc-{uuid4().hex[:8]}"
        app = App("rpc", broker=broker_url, backend="rpc://", task_default_queue=queue)

        @app.task(name="add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="fail", shared=False)
        def fail(text: str) -> None:
            raise LookupError(text)

        @app.task(name="progress", bind=True, shared=False)
        def progress(self: Any, steps: int) -> str:
            for step in range(steps):
                self.update_state(state="PROGRESS", meta={"step": step})
            return "done"

        with InlineWorker(app):
            yield app
        app.close()

    def test_a_value_comes_back(self, app: Any) -> None:
        assert app.tasks["add"].delay(2, 3).get(timeout=_PATIENCE_SECONDS) == 5

    def test_a_value_can_be_asked_for_again(self, app: Any) -> None:
        result = app.tasks["add"].delay(2, 3)
        assert result.get(timeout=_PATIENCE_SECONDS) == 5
        assert app.AsyncResult(result.id).get(timeout=_PATIENCE_SECONDS) == 5
        assert app.AsyncResult(result.id).state == states.SUCCESS

    def test_a_failure_is_raised(self, app: Any) -> None:
        result = app.tasks["fail"].delay("nothing")
        with pytest.raises(LookupError, match="nothing"):
            result.get(timeout=_PATIENCE_SECONDS)
        assert "LookupError" in result.traceback

    def test_states_on_the_way_are_seen(self, app: Any) -> None:
        seen: list[Any] = []
        result = app.tasks["progress"].delay(3)
        assert result.get(timeout=_PATIENCE_SECONDS, on_message=seen.append) == "done"
        assert seen[-1]["status"] == states.SUCCESS
        assert {meta["status"] for meta in seen[:-1]} <= {"PROGRESS"}

    def test_a_group_comes_back_in_order(self, app: Any) -> None:
        result = group(app.tasks["add"].s(i, i) for i in range(50))()
        assert result.get(timeout=_PATIENCE_SECONDS) == [2 * i for i in range(50)]

    def test_results_of_others_are_kept(self, app: Any) -> None:
        results = [app.tasks["add"].delay(i, 1) for i in range(20)]
        values = [result.get(timeout=_PATIENCE_SECONDS) for result in reversed(results)]
        assert values == [i + 1 for i in reversed(range(20))]

    def test_a_chain_ends_with_its_last_value(self, app: Any) -> None:
        add = app.tasks["add"]
        assert (add.s(1, 1) | add.s(2) | add.s(3))().get(timeout=_PATIENCE_SECONDS) == 7

    def test_another_thread_can_wait(self, app: Any) -> None:
        results = [app.tasks["add"].delay(i, i) for i in range(16)]
        values: dict[int, Any] = {}

        def wait(number: int) -> None:
            values[number] = results[number].get(timeout=_PATIENCE_SECONDS)

        threads = [threading.Thread(target=wait, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert values == {i: 2 * i for i in range(16)}

    def test_it_can_be_awaited(self, app: Any) -> None:
        results = [app.tasks["add"].delay(i, i) for i in range(5)]

        async def client() -> list[Any]:
            return list(await asyncio.gather(*results))

        assert asyncio.run(client()) == [0, 2, 4, 6, 8]

    def test_then_is_called(self, app: Any) -> None:
        called = threading.Event()
        values: list[Any] = []

        def callback(result: Any) -> None:
            values.append(result.result)
            called.set()

        app.tasks["add"].delay(2, 2).then(callback)
        assert called.wait(_PATIENCE_SECONDS)
        assert values == [4]

    def test_waiting_ends_with_the_timeout(self, app: Any) -> None:
        with pytest.raises(TimeoutError):
            app.AsyncResult(str(uuid4())).get(timeout=0.2)

    def test_an_unknown_id_is_pending(self, app: Any) -> None:
        assert app.AsyncResult(str(uuid4())).state == states.PENDING

    def test_forgetting_drops_the_value(self, app: Any) -> None:
        result = app.tasks["add"].delay(2, 3)
        result.get(timeout=_PATIENCE_SECONDS)
        result.forget()
        assert app.AsyncResult(result.id).state == states.PENDING

    def test_chords_are_refused_clearly(self, app: Any) -> None:
        add = app.tasks["add"]
        with pytest.raises(ImproperlyConfigured, match="does not support chords"):
            chord([add.s(1, 1)], add.si(1, 1))()

    def test_groups_cannot_be_saved(self, app: Any) -> None:
        with pytest.raises(ImproperlyConfigured, match="cannot save groups"):
            app.GroupResult(str(uuid4()), []).save()
