"""The result of one task."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, cast

from qcore import current, states
from qcore.backend.contract import Backend
from qcore.backend.meta import as_meta
from qcore.backend.record import ResultRecord
from qcore.errors import TimeoutError

from .base import ResultBase
from .joining import assert_will_not_block
from .tuples import result_from_tuple

R = TypeVar("R")
OnMessage = Callable[[dict[str, Any]], Any]

_PARENT_CHECK_SECONDS = 1.0


class ResultApp(Protocol):
    """What results need of the app."""

    backend: Any
    control: Any
    conf: Any
    AsyncResult: Any
    GroupResult: Any


class AsyncResult(ResultBase, Generic[R]):
    """The state and value of a task by its id.

    Args:
        id: id of the task.
        backend: store to ask; default the app's.
        task_name: name of the task, if known.
        app: default the current one.
        parent: result that this one follows from.

    Raises:
        ValueError: `id` is None.
    """

    def __init__(
        self,
        id: str,
        backend: Backend | None = None,
        task_name: str | None = None,
        app: Any = None,
        parent: ResultBase | None = None,
    ) -> None:
        if id is None:
            raise ValueError(f"{type(self).__name__} needs the id of a task, not None")
        self.id = id
        self._app = app
        self._backend = backend
        self.task_name = task_name
        self.parent = parent
        self.ignored = False
        self._record: ResultRecord | None = None
        self._callbacks: list[tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] = []

    # --- what it belongs to --------------------------------------------------------------------

    @property
    def app(self) -> Any:
        """The app whose task this is."""
        if self._app is None:
            self._app = current.get_current_app()
        return self._app

    @property
    def backend(self) -> Backend:
        """The store that is asked."""
        if self._backend is None:
            self._backend = self.app.backend
        return cast(Backend, self._backend)

    @backend.setter
    def backend(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def task_id(self) -> str:
        """Same as `id`."""
        return self.id

    @property
    def supports_native_join(self) -> bool:
        """Whether the store can wait for many results together."""
        return self.backend.supports_native_join

    # --- waiting -------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: OnMessage | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        **ignored: Any,
    ) -> R:
        """Wait for the task and return its value.

        Args:
            timeout: seconds; None waits for ever, 0 only looks.
            propagate: raise the task's exception; False returns it.
            interval: longest pause in seconds between looks at a store that has to poll.
            no_ack: accepted for compatibility; replies are always taken without acknowledgement.
            follow_parents: raise the failure of a parent, if one failed.
            callback: called `callback(id, value)` in place of nothing; the value is returned as well.
            on_message: gets the meta mapping of every state change; the store must support it.
            on_interval: called at every step of the wait.
            disable_sync_subtasks: refuse to wait within a task.

        Raises:
            TimeoutError: the task was not over in time (`qcore.errors.TimeoutError`).
            RuntimeError: called within a task.
        """
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks:
            assert_will_not_block()
        record = self._record
        if record is None:
            record = self._wait(timeout, interval, on_message, on_interval, propagate and follow_parents)
        if propagate and follow_parents and record.status in states.PROPAGATE_STATES:
            self._throw_of_parents()
        return cast(R, self._value(record, propagate, callback))

    wait = get

    def _wait(
        self,
        timeout: float | None,
        interval: float,
        on_message: OnMessage | None,
        on_interval: Callable[[], Any] | None,
        watch_parents: bool,
    ) -> ResultRecord:
        step: Callable[[], Any] | None = on_interval
        if watch_parents and self.parent is not None:
            step = self._parent_watch(on_interval)
        listener = None if on_message is None else _as_listener(on_message)
        try:
            for record in self.backend.wait(
                (self.id,), timeout, interval=interval, on_message=listener, on_interval=step
            ):
                self._set_record(record)
                return record
        except TimeoutError as exc:
            raise TimeoutError(f"The operation timed out: task {self.id} is not ready") from exc
        raise TimeoutError(f"the store gave no result for task {self.id}")

    def _parent_watch(self, on_interval: Callable[[], Any] | None) -> Callable[[], Any]:
        next_look = time.monotonic() + _PARENT_CHECK_SECONDS

        def step() -> None:
            nonlocal next_look
            if on_interval is not None:
                on_interval()
            if time.monotonic() >= next_look:
                self._throw_of_parents()
                next_look = time.monotonic() + _PARENT_CHECK_SECONDS

        return step

    def _throw_of_parents(self) -> None:
        """Raise the failure of the first parent that failed."""
        parents = self.ancestors()
        refresh([leaf for node in parents for leaf in leaves_of(node)])
        for node in reversed(parents):
            node.maybe_throw()

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    async def aget(
        self, timeout: float | None = None, propagate: bool = True, follow_parents: bool = True
    ) -> R:
        """`get` that does not block the event loop."""
        if self.ignored:
            return cast(R, None)
        record = self._record
        if record is None:
            record = await self.backend.await_record(self.id, timeout)
            self._set_record(record)
        if propagate and follow_parents and self.parent and record.status in states.PROPAGATE_STATES:
            import asyncio

            await asyncio.to_thread(self._throw_of_parents)
        return cast(R, self._value(record, propagate, None))

    def then(
        self,
        callback: Callable[[AsyncResult[R]], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,
    ) -> AsyncResult[R]:
        """Call `callback(result)` when the task is over; returns this result.

        Args:
            callback: called in this thread when the task is over already, else in a helper thread.
            on_error: called instead when the task failed.
            weak: accepted for compatibility; the callback is kept alive.
        """
        self._callbacks.append((callback, on_error))
        if self._look().ready:
            self._call_back()
        elif len(self._callbacks) == 1:
            self.backend.watch(self.id, self._on_watched)
        return self

    def _on_watched(self, record: ResultRecord) -> None:
        self._set_record(record)

    def _call_back(self) -> None:
        waiting, self._callbacks = self._callbacks, []
        for callback, on_error in waiting:
            if on_error is not None and self.failed():
                on_error(self)
            else:
                callback(self)

    def throw(self, *args: Any) -> None:
        """Raise the given exception: part of the promise protocol."""
        raise args[0]

    # --- looking -------------------------------------------------------------------------------

    def _set_record(self, record: ResultRecord) -> None:
        if record.ready:
            self._record = record
            if self._callbacks:
                self._call_back()

    def _look(self) -> ResultRecord:
        if self._record is not None:
            return self._record
        record = self.backend.get(self.id)
        self._set_record(record)
        return record

    def ready(self) -> bool:
        """Whether the task is over."""
        return self._look().ready

    def successful(self) -> bool:
        """Whether the task returned."""
        return self._look().status == states.SUCCESS

    def failed(self) -> bool:
        """Whether the task raised."""
        return self._look().status == states.FAILURE

    def exists(self) -> bool:
        """Whether the store knows the id."""
        return self._record is not None or self.backend.exists(self.id)

    @property
    def state(self) -> str:
        """Name of the state; PENDING for an unknown id."""
        return self._look().status

    status = state

    @property
    def result(self) -> Any:
        """Value, exception, or the meta of a custom state; None while pending."""
        return self._look().result

    info = result

    @property
    def traceback(self) -> str | None:
        """Text of the traceback of a failed task."""
        return self._look().traceback

    @property
    def children(self) -> list[ResultBase] | None:
        """Results of the tasks that this one sent; None while they are unknown."""
        children = self._look().children
        if children is None:
            return None
        return [result_from_tuple(child, self.app) for child in children]

    @property
    def date_done(self) -> datetime | None:
        """When the task was over, aware."""
        return self._look().date_done

    @property
    def name(self) -> str | None:
        """Name of the task (`result_extended`)."""
        return self._look().name

    @property
    def args(self) -> Any:
        """Positional arguments (`result_extended`)."""
        return self._look().args

    @property
    def kwargs(self) -> Any:
        """Keyword arguments (`result_extended`)."""
        return self._look().kwargs

    @property
    def worker(self) -> str | None:
        """Node that ran the task (`result_extended`)."""
        return self._look().worker

    @property
    def retries(self) -> int | None:
        """Tries before this one (`result_extended`)."""
        return self._look().retries

    @property
    def queue(self) -> str | None:
        """Routing key that the task came by (`result_extended`)."""
        return self._look().queue

    @property
    def stamps(self) -> dict[str, Any]:
        """Stamps of the task (`result_extended`)."""
        return dict(self._look().stamps)

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise if the task failed or was revoked, else return the value; does not wait."""
        return self._value(self._look(), propagate, callback)

    maybe_reraise = maybe_throw

    def _value(
        self, record: ResultRecord, propagate: bool, callback: Callable[[str, Any], Any] | None
    ) -> Any:
        if propagate and record.status in states.PROPAGATE_STATES:
            raise self._to_raise(record)
        if callback is not None:
            callback(self.id, record.result)
        return record.result

    def _to_raise(self, record: ResultRecord) -> BaseException:
        exc = record.result
        if not isinstance(exc, BaseException):
            exc = RuntimeError(f"task {self.id} is {record.status}: {exc!r}")
        if record.traceback and self.app.conf.task_remote_tracebacks:
            exc.__cause__ = RemoteTraceback(record.traceback)
        return cast(BaseException, exc)

    # --- acting --------------------------------------------------------------------------------

    def forget(self) -> None:
        """Remove the stored result, and those of the parents."""
        self._record = None
        if self.parent is not None:
            cast(Any, self.parent).forget()
        self.backend.forget(self.id)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Tell all workers to skip the task, or with `terminate` to end it.

        Args:
            connection: connection to the broker to use.
            terminate: also kill the process if the task is running.
            signal: signal to kill with; default TERM.
            wait: collect the workers' replies, for `timeout` seconds (default 1).
            timeout: seconds.
        """
        return self.app.control.revoke(
            self.id, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Revoke every task that carries one of the given stamps; arguments as `revoke`."""
        return self.app.control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    # --- Python --------------------------------------------------------------------------------

    def as_tuple(self) -> Any:
        """`((id, parent), None)`."""
        return (self.id, self.parent.as_tuple() if self.parent is not None else None), None

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __copy__(self) -> AsyncResult[R]:
        return type(self)(self.id, self._backend, self.task_name, self._app, self.parent)

    def __reduce__(self) -> Any:
        return type(self), (self.id, None, self.task_name, None, self.parent)


class RemoteTraceback(Exception):
    """Shows the traceback of the worker below the exception that `get()` raises."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _as_listener(on_message: OnMessage) -> Callable[[ResultRecord], Any]:
    def listener(record: ResultRecord) -> Any:
        return on_message(as_meta(record))

    return listener


def leaves_of(node: Any) -> list[AsyncResult[Any]]:
    """The task results of a result: itself, or the members of a set at any depth."""
    if isinstance(node, AsyncResult):
        return [node]
    return [leaf for member in node.results for leaf in leaves_of(member)]


def refresh(leaves: Iterable[AsyncResult[Any]]) -> None:
    """Look up those that are not known to be ready, in one question per store."""
    asked: dict[int, tuple[Backend, dict[str, list[AsyncResult[Any]]]]] = {}
    for leaf in leaves:
        if leaf._record is None:
            backend = leaf.backend
            _, wanted = asked.setdefault(id(backend), (backend, {}))
            wanted.setdefault(leaf.id, []).append(leaf)
    for backend, wanted in asked.values():
        for task_id, record in backend.get_many(list(wanted)).items():
            for leaf in wanted[task_id]:
                leaf._set_record(record)
