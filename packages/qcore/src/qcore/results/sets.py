"""Results of many tasks taken together."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast
from uuid import uuid4

from qcore import current, states
from qcore.backend.contract import Backend
from qcore.backend.record import ResultRecord
from qcore.errors import ImproperlyConfigured, TimeoutError

from .base import ResultBase
from .joining import assert_will_not_block
from .single import AsyncResult, OnMessage, _as_listener, leaves_of, refresh
from .tuples import result_from_tuple

R = TypeVar("R")
ValueCallback = Callable[[str, Any], Any]


class ResultSet(ResultBase, Generic[R]):
    """A list of results that is asked as one.

    Args:
        results: `AsyncResult`s, or sets of them.
        app: default that of the first member.
        ready_barrier: called without arguments once all are ready, as with `then`.
    """

    def __init__(
        self,
        results: Iterable[ResultBase] | None = None,
        app: Any = None,
        ready_barrier: Callable[[], Any] | None = None,
    ) -> None:
        self.results: list[ResultBase] = list(results or ())
        self._app = app
        if ready_barrier is not None:
            self.then(lambda _: ready_barrier())

    @property
    def app(self) -> Any:
        """The app whose tasks these are."""
        if self._app is None:
            leaf = next(iter(leaves_of(self)), None)
            self._app = leaf.app if leaf is not None else current.get_current_app()
        return self._app

    @property
    def backend(self) -> Backend:
        """The store of the members."""
        leaf = next(iter(leaves_of(self)), None)
        return cast(Backend, self.app.backend) if leaf is None else leaf.backend

    @property
    def supports_native_join(self) -> bool:
        """Whether the store can wait for all members together."""
        leaves = leaves_of(self)
        return bool(leaves) and all(leaf.supports_native_join for leaf in leaves)

    @property
    def children(self) -> list[ResultBase] | None:
        """The members."""
        return self.results

    # --- as a list -----------------------------------------------------------------------------

    def add(self, result: ResultBase) -> None:
        """Add a result that is not there yet."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: ResultBase | str) -> None:
        """Remove a result or the one with that id.

        Raises:
            KeyError: it is not a member.
        """
        try:
            self.results.remove(result)  # type: ignore[arg-type]
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: ResultBase | str) -> None:
        """Remove a result if it is there."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[ResultBase]) -> None:
        """Add those that are not there yet."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Remove all."""
        self.results.clear()

    def __iter__(self) -> Iterator[ResultBase]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> ResultBase:
        return self.results[index]

    def __contains__(self, result: object) -> bool:
        return result in self.results

    # --- looking -------------------------------------------------------------------------------

    def _records(self) -> list[ResultRecord]:
        """The newest record of each task; one question for all that are not known to be ready."""
        leaves = leaves_of(self)
        waiting = {leaf.id: leaf for leaf in leaves if leaf._record is None}
        found: dict[str, ResultRecord] = {}
        if len({id(leaf.backend) for leaf in waiting.values()}) == 1:
            backend = next(iter(waiting.values())).backend
            found = backend.get_many(list(waiting))
            for task_id, record in found.items():
                waiting[task_id]._set_record(record)
        else:
            refresh(waiting.values())
        pending = ResultRecord(task_id="")
        return [leaf._record or found.get(leaf.id, pending) for leaf in leaves]

    def ready(self) -> bool:
        """Whether all are over."""
        return all(record.ready for record in self._records())

    def waiting(self) -> bool:
        """Whether any is not over."""
        return not self.ready()

    def successful(self) -> bool:
        """Whether all returned."""
        return all(record.status == states.SUCCESS for record in self._records())

    def failed(self) -> bool:
        """Whether any raised."""
        return any(record.status == states.FAILURE for record in self._records())

    def completed_count(self) -> int:
        """How many of the members returned."""
        self._records()
        return sum(1 for result in self.results if cast(Any, result).successful())

    def maybe_throw(self, propagate: bool = True, callback: ValueCallback | None = None) -> Any:
        """Raise the failure of the first member that failed; does not wait."""
        self._records()
        for result in self.results:
            result.maybe_throw(propagate=propagate, callback=callback)

    maybe_reraise = maybe_throw

    # --- waiting -------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: ValueCallback | None = None,
        no_ack: bool = True,
        on_message: OnMessage | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
        **ignored: Any,
    ) -> list[R]:
        """The values in order; see `join`."""
        join = self.join_native if self.supports_native_join else self.join
        return join(
            timeout=timeout,
            propagate=propagate,
            interval=interval,
            callback=callback,
            no_ack=no_ack,
            on_message=on_message,
            disable_sync_subtasks=disable_sync_subtasks,
            on_interval=on_interval,
        )

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: ValueCallback | None = None,
        no_ack: bool = True,
        on_message: OnMessage | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[R]:
        """Wait for one after the other and return the values in order.

        Args:
            timeout: seconds for the whole set.
            propagate: raise the exception of a failed member; False puts it into the list.
            interval: longest pause in seconds between looks at a store that has to poll.
            callback: called `callback(id, value)` for each; then the list that is returned is empty.
            no_ack: accepted for compatibility.
            on_message: gets the meta mapping of every state change; the store must support it.
            disable_sync_subtasks: refuse to wait within a task.
            on_interval: called at every step of the wait.

        Raises:
            TimeoutError: not all were over in time.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        if on_message is not None and not self.backend.supports_messages:
            raise ImproperlyConfigured("this result store does not support on_message: it is polled")
        end = None if timeout is None else time.monotonic() + timeout
        values: list[Any] = []
        for result in self.results:
            remaining = None if end is None else max(0.0, end - time.monotonic())
            value = result.get(
                timeout=remaining,
                propagate=propagate,
                interval=interval,
                no_ack=no_ack,
                on_message=on_message,
                on_interval=on_interval,
                disable_sync_subtasks=disable_sync_subtasks,
            )
            if callback is None:
                values.append(value)
            else:
                callback(cast(Any, result).id, value)
        return values

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: ValueCallback | None = None,
        no_ack: bool = True,
        on_message: OnMessage | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R]:
        """`join` with one wait for all: values arrive in any order and are returned in the members' order."""
        if disable_sync_subtasks:
            assert_will_not_block()
        for leaf in self._arrivals(timeout, interval, on_message, on_interval):
            if propagate and cast(ResultRecord, leaf._record).status in states.PROPAGATE_STATES:
                leaf.maybe_throw()
            if callback is not None:
                callback(leaf.id, leaf.maybe_throw(propagate=False))
        if callback is not None:
            return []
        return [_value_of(result, propagate) for result in self.results]

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: OnMessage | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, ResultRecord]]:
        """`(id, record)` of each task as it becomes ready."""
        for leaf in self._arrivals(timeout, interval, on_message, on_interval):
            yield leaf.id, cast(ResultRecord, leaf._record)

    def _arrivals(
        self,
        timeout: float | None,
        interval: float,
        on_message: OnMessage | None,
        on_interval: Callable[[], Any] | None,
    ) -> Iterator[AsyncResult[Any]]:
        """The tasks as they become ready, those that are first."""
        end = None if timeout is None else time.monotonic() + timeout
        waiting: dict[int, tuple[Backend, dict[str, list[AsyncResult[Any]]]]] = {}
        for leaf in leaves_of(self):
            if leaf._record is not None:
                yield leaf
            else:
                backend = leaf.backend
                _, ids = waiting.setdefault(id(backend), (backend, {}))
                ids.setdefault(leaf.id, []).append(leaf)
        listener = None if on_message is None else _as_listener(on_message)
        for backend, ids in waiting.values():
            remaining = None if end is None else max(0.0, end - time.monotonic())
            for record in backend.wait(
                list(ids), remaining, interval=interval, on_message=listener, on_interval=on_interval
            ):
                for leaf in ids[record.task_id]:
                    leaf._set_record(record)
                    yield leaf

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self.aget().__await__()

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> list[R]:
        """`get` that does not block the event loop."""
        import asyncio

        async def fetch(result: Any) -> Any:
            return await result.aget(propagate=propagate)

        gathered = asyncio.gather(*(fetch(result) for result in self.results))
        try:
            return list(await asyncio.wait_for(gathered, timeout))
        except builtins.TimeoutError as exc:
            raise TimeoutError("The operation timed out: not all results are ready") from exc

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,
    ) -> ResultSet[R]:
        """Call `callback(self)` when all are over, `on_error(self)` instead when one failed."""
        left = len(self.results)

        def finished(_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                use_error = on_error is not None and self.failed()
                (cast(Any, on_error) if use_error else callback)(self)

        if not left:
            callback(self)
        for result in list(self.results):
            cast(Any, result).then(finished)
        return self

    # --- acting --------------------------------------------------------------------------------

    def forget(self) -> None:
        """Remove the stored results of all members."""
        for result in self.results:
            cast(Any, result).forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Revoke all members with one message; arguments as `AsyncResult.revoke`."""
        return self.app.control.revoke(
            [leaf.id for leaf in leaves_of(self)],
            connection=connection,
            terminate=terminate,
            signal=signal,
            reply=wait,
            timeout=timeout,
        )

    # --- Python --------------------------------------------------------------------------------

    def as_tuple(self) -> Any:
        """`((None, None), members)`."""
        return (None, None), [result.as_tuple() for result in self.results]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ResultSet):
            return self.results == other.results
        return NotImplemented

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(map(_short, self.results))}]>"


class GroupResult(ResultSet[R], Generic[R]):
    """The result of a group; it has an id and can be saved and restored.

    Args:
        id: id of the group.
        results: results of the members, in order.
        parent: result that the group follows from.
    """

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[ResultBase] | None = None,
        parent: ResultBase | None = None,
        app: Any = None,
        **kwargs: Any,
    ) -> None:
        self.id = id
        self.parent = parent
        super().__init__(results, app=app, **kwargs)

    def save(self, backend: Backend | None = None) -> None:
        """Keep the group in the store, for `restore`."""
        (backend or self.app.backend).save_group(self)

    def delete(self, backend: Backend | None = None) -> None:
        """Remove what `save` kept."""
        if self.id is not None:
            (backend or self.app.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Backend | None = None, app: Any = None) -> GroupResult[Any] | None:
        """The group saved under `id`, None when there is none."""
        app = app or getattr(cls, "app_of_class", None) or current.get_current_app()
        saved = (backend or app.backend).restore_group(id)
        return None if saved is None else cast("GroupResult[Any]", result_from_tuple(saved, app))

    def forget(self) -> None:
        """Remove the stored results of all members, and the saved group."""
        super().forget()
        if self.id is not None:
            self.backend.delete_group(self.id)

    def as_tuple(self) -> Any:
        """`((id, parent), members)`."""
        parent = self.parent.as_tuple() if self.parent is not None else None
        return (self.id, parent), [result.as_tuple() for result in self.results]

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return other.id == self.id and other.results == self.results and other.parent == self.parent
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(map(_short, self.results))}]>"

    def __reduce__(self) -> Any:
        return type(self), (self.id or str(uuid4()), self.results, self.parent)


def _short(result: Any) -> str:
    return repr(result) if isinstance(result, ResultSet) else str(result)


def _value_of(result: Any, propagate: bool) -> Any:
    if isinstance(result, ResultSet):
        return [_value_of(member, propagate) for member in result.results]
    return result.maybe_throw(propagate=propagate)
