"""The result of a task that ran here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar, cast

from qcore import states
from qcore.backend.record import ResultRecord
from qcore.errors import TaskRevokedError
from qcore.times import utc_now

from .base import ResultBase
from .joining import assert_will_not_block
from .single import AsyncResult

R = TypeVar("R")


class EagerResult(AsyncResult[R], Generic[R]):
    """A result that is known already.

    Args:
        id: id of the task.
        ret_value: value or exception.
        state: state reached.
        traceback: text.
        name: name of the task.
        children: results of the tasks that it sent.
    """

    def __init__(
        self,
        id: str,
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
        *,
        children: Sequence[ResultBase] = (),
        app: Any = None,
        parent: ResultBase | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(id, task_name=name, app=app, parent=parent)
        self._children = list(children)
        self._record = ResultRecord(
            task_id=id,
            status=state,
            result=ret_value,
            traceback=traceback,
            date_done=utc_now() if state in states.READY_STATES else None,
            name=name,
            **fields,
        )

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        **ignored: Any,
    ) -> R:
        """The value, at once; a failed task raises its own exception."""
        if disable_sync_subtasks:
            assert_will_not_block()
        record = cast(ResultRecord, self._record)
        if propagate and follow_parents and record.status in states.PROPAGATE_STATES:
            for node in reversed(self.ancestors()):
                node.maybe_throw()
        return cast(R, self._value(record, propagate, callback))

    wait = get

    async def aget(
        self, timeout: float | None = None, propagate: bool = True, follow_parents: bool = True
    ) -> R:
        """The value, at once."""
        return self.get(propagate=propagate, follow_parents=follow_parents, disable_sync_subtasks=False)

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    @property
    def children(self) -> list[ResultBase] | None:
        """Results of the tasks that this one sent."""
        return self._children

    @property
    def supports_native_join(self) -> bool:
        """There is nothing to wait for."""
        return False

    def ready(self) -> bool:
        """True: the task has run."""
        return True

    def exists(self) -> bool:
        """True: the task has run."""
        return True

    def _look(self) -> ResultRecord:
        return cast(ResultRecord, self._record)

    def _to_raise(self, record: ResultRecord) -> BaseException:
        if isinstance(record.result, BaseException):
            return record.result
        return RuntimeError(f"task {self.id} is {record.status}: {record.result!r}")

    def forget(self) -> None:
        """Nothing is stored, so there is nothing to forget."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Show the state REVOKED from now on."""
        self._record = ResultRecord(
            task_id=self.id, status=states.REVOKED, result=TaskRevokedError("revoked"), name=self.task_name
        )

    def __reduce__(self) -> Any:
        record = self._look()
        return type(self), (self.id, record.result, record.status, record.traceback, self.task_name)
