"""What every result store must do, as tests: subclass `BackendConformance` and give it a fixture `make_app`.

```python
class TestMyStore(BackendConformance):
    @pytest.fixture
    def make_app(self):
        def make(**settings):
            return App("conformance", broker="memory://", backend="my://", **settings)
        return make
```

Each call of `make_app` gives an app on the same store, as another process would have. Ids are new in every test, so
a shared server will do.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from qcore import errors, states
from qcore.backend.record import ResultRecord
from qcore.request import Context
from qcore.results import GroupResult

__all__ = ["BackendConformance", "request_of"]

_PATIENCE_SECONDS = 20.0


class Moody(Exception):
    """Its constructor takes other arguments than it hands on."""

    def __init__(self, code: int, *, why: str = "") -> None:
        super().__init__(f"{code}: {why}")


class Unprintable(Exception):
    """Neither its text nor its repr can be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def request_of(task_id: str, **fields: Any) -> Context:
    """The request of a task that a worker runs."""
    fields.setdefault("task", "conformance.task")
    return Context(id=task_id, called_directly=False, **fields)


def new_id() -> str:
    """An id that nobody has used."""
    return str(uuid4())


def store(app: Any, task_id: str, state: str = states.SUCCESS, result: Any = None, **fields: Any) -> None:
    """Store and flush one record."""
    app.backend.store(ResultRecord.of(request_of(task_id, **fields), state, result))
    app.backend.flush()


class BackendConformance:
    """The suite; see the module."""

    chords = True
    """Whether the store does chords and keeps groups."""
    shared = True
    """Whether a second app sees what the first has stored."""

    @pytest.fixture
    def make_app(self) -> Any:
        raise TypeError(f"{type(self).__name__} needs a fixture make_app")

    @pytest.fixture
    def app(self, make_app: Callable[..., Any]) -> Iterator[Any]:
        app = make_app()
        yield app
        app.close()

    @pytest.fixture
    def reader(self, app: Any, make_app: Callable[..., Any]) -> Iterator[Any]:
        """An app that reads what `app` wrote."""
        if not self.shared:
            yield app
            return
        reader = make_app(set_as_current=False)
        yield reader
        reader.close()

    # --- one record ----------------------------------------------------------------------------

    def test_an_unknown_id_is_pending(self, app: Any) -> None:
        record = app.backend.get(new_id())
        assert record.status == states.PENDING
        assert record.result is None
        assert not app.backend.exists(new_id())

    @pytest.mark.parametrize("value", [None, 0, 1.5, "tekst æøå", [1, [2, {"a": None}]], {"b": {"c": []}}])
    def test_a_value_comes_back(self, app: Any, reader: Any, value: Any) -> None:
        task_id = new_id()
        store(app, task_id, result=value)
        record = reader.backend.get(task_id)
        assert (record.status, record.result) == (states.SUCCESS, value)
        assert reader.backend.exists(task_id)

    def test_the_time_of_completion_is_aware(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        before = time.time()
        store(app, task_id)
        done = reader.backend.get(task_id).date_done
        assert done.tzinfo is not None
        assert before - 1 <= done.timestamp() <= time.time() + 1

    def test_a_state_before_the_end_has_no_time_of_completion(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        store(app, task_id, states.STARTED, {"pid": 1, "hostname": "a@b"})
        record = reader.backend.get(task_id)
        assert record.date_done is None
        assert record.result == {"pid": 1, "hostname": "a@b"}

    def test_a_custom_state_keeps_its_meta(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        app.backend.store_result(task_id, {"done": 3}, "PROGRESS")
        record = reader.backend.get(task_id)
        assert (record.status, record.result) == ("PROGRESS", {"done": 3})

    def test_children_come_back(self, app: Any, reader: Any) -> None:
        task_id, child = new_id(), new_id()
        request = request_of(task_id)
        request.children.append(app.AsyncResult(child))
        app.backend.store(ResultRecord.of(request, states.SUCCESS, 1))
        app.backend.flush()
        result = reader.AsyncResult(task_id)
        assert [found.id for found in result.children] == [child]

    def test_extended_fields_come_back(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        request = request_of(
            task_id,
            args=[1, 2],
            kwargs={"a": "b"},
            hostname="q@here",
            retries=2,
            delivery_info={"routing_key": "video"},
            stamped_headers=["lot"],
            stamps={"lot": "x7"},
        )
        app.backend.store(ResultRecord.of(request, states.SUCCESS, 1, extended=True))
        app.backend.flush()
        record = reader.backend.get(task_id)
        assert record.name == "conformance.task"
        assert (list(record.args), record.kwargs) == ([1, 2], {"a": "b"})
        assert (record.worker, record.retries, record.queue) == ("q@here", 2, "video")
        assert record.stamps == {"lot": "x7"}

    def test_success_is_final(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        store(app, task_id, result=1)
        store(app, task_id, states.FAILURE, ValueError("late"))
        store(app, task_id, result=2, delivery_info={"redelivered": True})
        record = reader.backend.get(task_id)
        assert (record.status, record.result) == (states.SUCCESS, 1)

    def test_a_failure_is_not_final(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        store(app, task_id, states.FAILURE, ValueError("first"))
        store(app, task_id, result=2)
        assert reader.backend.get(task_id).result == 2

    def test_what_cannot_be_encoded_is_refused_and_not_buffered(self, app: Any) -> None:
        task_id = new_id()
        with pytest.raises(errors.EncodeError):
            app.backend.store(ResultRecord.of(request_of(task_id), states.SUCCESS, threading.Lock()))
        app.backend.flush()
        assert app.backend.get(task_id).status == states.PENDING

    def test_forgetting_is_repeatable(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        store(app, task_id, result=1)
        assert reader.backend.get(task_id).status == states.SUCCESS
        reader.backend.forget(task_id)
        reader.backend.forget(task_id)
        assert reader.backend.get(task_id).status == states.PENDING

    # --- exceptions ----------------------------------------------------------------------------

    def test_an_exception_is_rebuilt_with_its_class_and_arguments(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        app.backend.store(
            ResultRecord.of(request_of(task_id), states.FAILURE, KeyError("a", 2), "Traceback …\nKeyError")
        )
        app.backend.flush()
        result = reader.AsyncResult(task_id)
        with pytest.raises(KeyError) as caught:
            result.get(timeout=_PATIENCE_SECONDS)
        assert caught.value.args == ("a", 2)
        assert result.traceback == "Traceback …\nKeyError"
        assert result.failed()

    def test_a_revoked_task_raises_our_error(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        store(app, task_id, states.REVOKED, errors.TaskRevokedError("expired"))
        with pytest.raises(errors.TaskRevokedError, match="expired"):
            reader.AsyncResult(task_id).get(timeout=_PATIENCE_SECONDS)

    @pytest.mark.parametrize(
        "exc", [Moody(7, why="rain"), Unprintable(), ValueError(object()), OSError(2, "gone")]
    )
    def test_no_exception_is_too_strange(self, app: Any, reader: Any, exc: Exception) -> None:
        task_id = new_id()
        store(app, task_id, states.FAILURE, exc)
        record = reader.backend.get(task_id)
        assert record.status == states.FAILURE
        assert type(record.result).__name__ == type(exc).__name__

    def test_a_class_that_is_unknown_here_gets_a_stand_in(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        stranger = type("StrangeError", (Exception,), {"__module__": "nowhere.at.all"})
        store(app, task_id, states.FAILURE, stranger("odd"))
        found = reader.backend.get(task_id).result
        assert type(found).__name__ == "StrangeError"
        assert found.args == ("odd",)

    # --- many, and waiting ---------------------------------------------------------------------

    def test_many_are_read_together(self, app: Any, reader: Any) -> None:
        ids = [new_id() for _ in range(1200)]
        for number, task_id in enumerate(ids):
            app.backend.store(ResultRecord.of(request_of(task_id), states.SUCCESS, number))
        app.backend.flush()
        found = reader.backend.get_many([*ids, new_id()])
        assert [found[task_id].result for task_id in ids] == list(range(1200))
        assert len(found) == 1200

    def test_waiting_ends_with_the_timeout(self, app: Any) -> None:
        started = time.monotonic()
        with pytest.raises(errors.TimeoutError):
            app.AsyncResult(new_id()).get(timeout=0.2)
        assert 0.15 <= time.monotonic() - started < 5

    def test_a_timeout_of_zero_only_looks(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        with pytest.raises(errors.TimeoutError):
            reader.AsyncResult(task_id).get(timeout=0)
        store(app, task_id, result=5)
        assert reader.AsyncResult(task_id).get(timeout=0) == 5

    def test_waiting_sees_what_is_stored_later(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        looking = threading.Event()

        def work() -> None:
            looking.wait(10)
            store(app, task_id, result=9)

        worker = threading.Thread(target=work)
        worker.start()
        result = reader.AsyncResult(task_id)
        assert result.get(timeout=_PATIENCE_SECONDS, on_interval=looking.set) == 9
        worker.join()

    def test_many_arrive_in_any_order(self, app: Any, reader: Any) -> None:
        ids = [new_id() for _ in range(50)]
        looking = threading.Event()

        def work() -> None:
            looking.wait(10)
            for number, task_id in reversed(list(enumerate(ids))):
                store(app, task_id, result=number)

        worker = threading.Thread(target=work)
        worker.start()
        results = reader.GroupResult(new_id(), [reader.AsyncResult(task_id) for task_id in ids])
        assert results.get(timeout=_PATIENCE_SECONDS, on_interval=looking.set) == list(range(50))
        worker.join()

    def test_many_threads_wait_at_once(self, app: Any, reader: Any) -> None:
        ids = [new_id() for _ in range(64)]
        values: dict[str, Any] = {}
        waiting = threading.Semaphore(0)

        def wait(task_id: str) -> None:
            waiting.release()
            values[task_id] = reader.AsyncResult(task_id).get(timeout=_PATIENCE_SECONDS)

        threads = [threading.Thread(target=wait, args=(task_id,)) for task_id in ids for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            waiting.acquire(timeout=10)
        for number, task_id in enumerate(ids):
            app.backend.store(ResultRecord.of(request_of(task_id), states.SUCCESS, number))
        app.backend.flush()
        for thread in threads:
            thread.join(_PATIENCE_SECONDS)
        assert values == {task_id: number for number, task_id in enumerate(ids)}

    def test_awaiting_does_not_block_the_loop(self, app: Any, reader: Any) -> None:
        ids = [new_id() for _ in range(5)]

        async def client() -> tuple[list[Any], int]:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    if ticks == 10:
                        await asyncio.to_thread(self._store_all, app, ids)
                    await asyncio.sleep(0.001)

            ticking = asyncio.create_task(tick())
            results = [reader.AsyncResult(task_id) for task_id in ids]
            values = await asyncio.wait_for(asyncio.gather(*results), _PATIENCE_SECONDS)
            ticking.cancel()
            return values, ticks

        values, ticks = asyncio.run(client())
        assert values == [0, 1, 2, 3, 4]
        assert ticks >= 10

    def test_awaiting_raises_the_failure_and_the_timeout(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        store(app, task_id, states.FAILURE, ValueError("no"))

        async def client() -> None:
            with pytest.raises(ValueError, match="no"):
                await reader.AsyncResult(task_id)
            with pytest.raises(errors.TimeoutError):
                await reader.AsyncResult(new_id()).aget(timeout=0.1)

        asyncio.run(client())

    @staticmethod
    def _store_all(app: Any, ids: list[str]) -> None:
        for number, task_id in enumerate(ids):
            app.backend.store(ResultRecord.of(request_of(task_id), states.SUCCESS, number))
        app.backend.flush()

    def test_a_callback_is_called_when_the_task_is_over(self, app: Any, reader: Any) -> None:
        early, late = new_id(), new_id()
        called: dict[str, Any] = {}
        both = threading.Event()

        def callback(result: Any) -> None:
            called[result.id] = result.result
            if len(called) == 2:
                both.set()

        store(app, early, result=1)
        reader.AsyncResult(early).then(callback)
        waiting = reader.AsyncResult(late)
        waiting.then(callback)
        store(app, late, result=2)
        assert both.wait(_PATIENCE_SECONDS)
        assert called == {early: 1, late: 2}

    def test_messages_of_all_states_reach_a_waiting_client(self, app: Any, reader: Any) -> None:
        task_id = new_id()
        result = reader.AsyncResult(task_id)
        if not reader.backend.supports_messages:
            with pytest.raises(errors.ImproperlyConfigured, match="on_message"):
                result.get(timeout=1, on_message=print)
            return
        seen: list[Any] = []
        first_seen = threading.Event()

        def on_message(meta: dict[str, Any]) -> None:
            seen.append((meta["status"], meta["result"]))
            first_seen.set()

        def work() -> None:
            store(app, task_id, "PROGRESS", {"done": 1})
            first_seen.wait(10)
            store(app, task_id, result="end")

        worker = threading.Thread(target=work)
        worker.start()
        assert result.get(timeout=_PATIENCE_SECONDS, on_message=on_message) == "end"
        worker.join()
        assert seen[0] == ("PROGRESS", {"done": 1})
        assert seen[-1] == (states.SUCCESS, "end")

    # --- processes and threads -----------------------------------------------------------------

    def test_a_forked_child_has_connections_of_its_own(self, app: Any, reader: Any) -> None:
        if not self.shared:
            pytest.skip("a child has a store of its own")
        before, inside = new_id(), new_id()
        store(app, before, result="parent")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads, as pools do
            child = os.fork()
        if child == 0:
            code = 1
            try:
                store(app, inside, result="child")
                code = 0 if app.backend.get(before).result == "parent" else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert reader.AsyncResult(inside).get(timeout=_PATIENCE_SECONDS) == "child"
        after = new_id()
        store(app, after, result="parent again")
        assert reader.backend.get(after).result == "parent again"

    def test_a_flush_waits_for_that_of_another_thread(self, app: Any, reader: Any) -> None:
        ids = [new_id() for _ in range(400)]

        def work(mine: list[str]) -> None:
            for task_id in mine:
                app.backend.store(ResultRecord.of(request_of(task_id), states.SUCCESS, task_id))
                app.backend.flush()
                if self.shared:
                    assert reader.backend.get(task_id).result == task_id

        failures: list[BaseException] = []

        def guarded(mine: list[str]) -> None:
            try:
                work(mine)
            except BaseException as exc:  # noqa: BLE001 - asserted by the test
                failures.append(exc)

        threads = [threading.Thread(target=guarded, args=(ids[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    # --- groups and chords ---------------------------------------------------------------------

    def test_groups_are_kept(self, app: Any, reader: Any) -> None:
        group_id = new_id()
        group = app.GroupResult(group_id, [app.AsyncResult(new_id()), app.AsyncResult(new_id())])
        if not self.chords:
            with pytest.raises(errors.ImproperlyConfigured):
                group.save()
            return
        group.save()
        assert GroupResult.restore(group_id, app=reader) == group
        group.delete()
        assert GroupResult.restore(group_id, app=reader) is None

    @pytest.fixture
    def chord(self, app: Any) -> Iterator[Chord]:
        chord = Chord(app)
        if not self.chords:
            with pytest.raises(errors.ImproperlyConfigured, match="chords"):
                chord.start(2)
            pytest.skip("this store does no chords")
        yield chord
        chord.close()

    def test_the_body_gets_the_values_in_order(self, chord: Chord) -> None:
        chord.start(3)
        for number in (2, 0, 1):
            assert chord.bodies() == []
            chord.part(number, f"value {number}")
        assert chord.bodies() == [["value 0", "value 1", "value 2"]]

    def test_a_batch_completes_a_chord(self, chord: Chord) -> None:
        chord.start(12)
        for number in range(12):
            chord.part(number, number, flush=False)
        chord.app.backend.flush()
        assert chord.bodies() == [list(range(12))]

    def test_a_part_counts_once(self, chord: Chord) -> None:
        chord.start(2)
        chord.part(0, "a")
        chord.part(0, "a again")
        assert chord.bodies() == []
        chord.part(1, "b")
        chord.part(1, "b again")
        assert chord.bodies() == [["a", "b"]]

    def test_an_ignored_task_counts(self, chord: Chord) -> None:
        chord.start(2)
        chord.part(0, None, state=states.IGNORED)
        chord.part(1, 1)
        assert chord.bodies() == [[None, 1]]

    @pytest.mark.parametrize(
        ("state", "exc"),
        [(states.FAILURE, ValueError("x")), (states.REVOKED, errors.TaskRevokedError("revoked"))],
    )
    def test_a_failed_part_fails_the_body(self, chord: Chord, state: str, exc: Exception) -> None:
        chord.start(2)
        chord.part(0, 1)
        chord.part(1, exc, state=state)
        record = chord.app.backend.get(chord.body_id)
        assert record.status == states.FAILURE
        assert str(record.result) == f"Dependency {chord.ids[1]} raised {exc!r}"
        assert isinstance(record.result, errors.ChordError)
        chord.part(1, 1)
        assert chord.bodies() == []

    def test_a_chord_can_grow(self, chord: Chord) -> None:
        chord.start(1)
        added = new_id()
        chord.app.backend.add_to_chord(chord.group_id, chord.app.AsyncResult(added))
        chord.part(0, "a")
        assert chord.bodies() == []
        chord.part(1, "b", task_id=added)
        assert chord.bodies() == [["a", "b"]]

    def test_a_nested_header_keeps_its_shape(self, chord: Chord) -> None:
        chord.start_nested([1, 2])
        for number in (2, 1, 0):
            chord.part(number, number)
        assert chord.bodies() == [[0, [1, 2]]]

    def test_many_workers_send_one_body(self, chord: Chord, make_app: Callable[..., Any]) -> None:
        apps = [make_app(set_as_current=False) for _ in range(4)] if self.shared else [chord.app] * 4
        for app in apps:
            app.finalize()
        chord.start(40)
        start = threading.Barrier(4)

        def work(number: int) -> None:
            start.wait(10)
            for position in range(number, 40, 4):
                chord.part(position, position, app=apps[number])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert chord.bodies() == [list(range(40))]
        for app in apps:
            app.close()


class Chord:
    """A chord whose header is played by the test; its body's messages are read from the broker."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.group_id, self.body_id = new_id(), new_id()
        self.queue = f"bodies-{self.group_id}"
        self.ids: list[str] = []
        self.body = app.signature("conformance.body", task_id=self.body_id, queue=self.queue)
        self._connection = app.connection_for_read()
        self._channel = self._connection.default_channel
        app.amqp.queues[self.queue](self._channel).declare()

    def start(self, size: int) -> None:
        """Begin a chord of that many tasks."""
        self.ids = [new_id() for _ in range(size)]
        header = self.app.GroupResult(self.group_id, [self.app.AsyncResult(i) for i in self.ids])
        self.app.backend.start_chord(self.group_id, self.body, size, header, nested=False)

    def start_nested(self, inner: list[int]) -> None:
        """Begin a chord of one task and a group of the tasks at the given places."""
        self.ids = [new_id() for _ in range(1 + len(inner))]
        group = self.app.GroupResult(new_id(), [self.app.AsyncResult(self.ids[i]) for i in inner])
        header = self.app.GroupResult(self.group_id, [self.app.AsyncResult(self.ids[0]), group])
        self.app.backend.start_chord(self.group_id, self.body, len(self.ids), header, nested=True)

    def part(
        self,
        number: int,
        value: Any,
        state: str = states.SUCCESS,
        task_id: str | None = None,
        app: Any = None,
        flush: bool = True,
    ) -> None:
        """Finish the task at that place."""
        backend = (app or self.app).backend
        request = request_of(
            task_id or self.ids[number], group=self.group_id, group_index=number, chord=dict(self.body)
        )
        if state != states.IGNORED:
            backend.store(ResultRecord.of(request, state, value))
        backend.chord_part(request, state, value)
        if flush:
            backend.flush()

    def bodies(self) -> list[Any]:
        """First arguments of the bodies sent so far, in all."""
        while (message := self._channel.basic_get(self.queue, no_ack=True)) is not None:
            self._seen.append(message.decode()[0][0])
        return self._seen

    @property
    def _seen(self) -> list[Any]:
        return self.__dict__.setdefault("_bodies", [])  # type: ignore[no-any-return]

    def close(self) -> None:
        """Remove the queue."""
        self._channel.queue_delete(self.queue)
        self._connection.release()
