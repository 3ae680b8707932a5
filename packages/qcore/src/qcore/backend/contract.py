"""What a result store is: the contract that every one of them fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from .record import RequestLike, ResultRecord

OnRecord = Callable[[ResultRecord], Any]
"""Called with every state change that reaches the waiting client."""


class BackendApp(Protocol):
    """What a store needs of the app."""

    @property
    def conf(self) -> Any:
        """Settings."""
        ...

    @property
    def oid(self) -> str:
        """Reply address of this process and thread."""
        ...

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """The signature for a mapping that came over the wire."""
        ...

    def fail_workflow(self, workflow: Any, exc: BaseException) -> None:
        """Record a workflow, and what follows it, as failed without having run, and call its errbacks."""
        ...


class GroupLike(Protocol):
    """What a store needs of a group's result."""

    id: Any

    def as_tuple(self) -> Any:
        """The group's result tuple (W15-07)."""
        ...


class Backend(ABC):
    """A place where results live.

    Made as `cls(app, url)`, one per app and process; used from several threads and after `fork` (a child notices
    by its pid that connections are its parent's, and makes its own). Writes may be buffered until `flush()`.
    """

    supports_native_join: bool
    """Whether many results can be awaited together without asking for each."""
    supports_chords: bool
    writes_nothing: bool
    """Whether results are thrown away."""
    supports_messages: bool
    """Whether every state change reaches a waiting client (`on_message`)."""
    persistent: bool
    """Whether results outlive the process that wrote them."""

    app: BackendApp
    url: str
    """Address with the password masked."""

    # --- writing, in workers -------------------------------------------------------------------

    @abstractmethod
    def store(self, record: ResultRecord) -> None:
        """Write `record`, at the latest at the next `flush()`. A stored SUCCESS is never overwritten.

        Raises:
            EncodeError: the result cannot be serialized; nothing was buffered.
        """

    @abstractmethod
    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: RequestLike | None = None,
    ) -> None:
        """Write a state at once (`update_state`, revocation), with the fields that `request` gives."""

    @abstractmethod
    def chord_part(self, request: RequestLike, state: str, result: Any) -> None:
        """Count a finished member of a chord's header; called after its record was stored, for every terminal
        state. Does nothing when `request` has no group or no chord. The flush that completes the count sends the
        body; a failed member stores the body as FAILURE with `ChordError` and calls its errbacks.
        """

    @abstractmethod
    def flush(self) -> None:
        """Make everything buffered durable, in order, in as few round trips as possible.

        Raises:
            BackendStoreError: the store could not be reached within its retry policy; what was buffered is kept.
        """

    # --- reading, in clients -------------------------------------------------------------------

    @abstractmethod
    def get(self, task_id: str) -> ResultRecord:
        """The newest record of `task_id`; PENDING for an unknown id.

        Raises:
            BackendGetMetaError: the store cannot be read.
        """

    @abstractmethod
    def get_many(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        """The records of those ids that the store knows."""

    @abstractmethod
    def wait(
        self,
        task_ids: Collection[str],
        timeout: float | None = None,
        *,
        interval: float | None = None,
        on_message: OnRecord | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[ResultRecord]:
        """The terminal record of each id, as they become ready.

        Args:
            task_ids: what to wait for.
            timeout: seconds for all of them; None waits for ever.
            interval: longest pause in seconds of a store that has to poll.
            on_message: gets every state change that is seen.
            on_interval: called at every step of the wait.

        Raises:
            TimeoutError: `qcore.errors.TimeoutError`; what was yielded before stays valid.
            ImproperlyConfigured: `on_message` is given and the store does not support it.
        """

    @abstractmethod
    def await_record(self, task_id: str, timeout: float | None = None) -> Awaitable[ResultRecord]:
        """The terminal record, without blocking the running event loop; raises as `wait`."""

    @abstractmethod
    def watch(self, task_id: str, callback: OnRecord) -> Callable[[], None]:
        """Call `callback(record)` from a helper thread once the task is over; what is returned stops it."""

    @abstractmethod
    def on_send(self, task_id: str) -> None:
        """A task is about to be published by this process (declare the reply queue, …)."""

    @abstractmethod
    def forget(self, task_id: str) -> None:
        """Remove the record; silent when there is none."""

    @abstractmethod
    def exists(self, task_id: str) -> bool:
        """Whether a record is stored."""

    # --- groups and chords ---------------------------------------------------------------------

    @abstractmethod
    def save_group(self, group: GroupLike) -> None:
        """Keep the tuple of a group's result, to be restored by id."""

    @abstractmethod
    def restore_group(self, group_id: str) -> Any | None:
        """The tuple that was saved, None when there is none."""

    @abstractmethod
    def delete_group(self, group_id: str) -> None:
        """Remove a saved group; silent when there is none."""

    @abstractmethod
    def start_chord(
        self, group_id: str, body: Mapping[str, Any], size: int, header: GroupLike, nested: bool
    ) -> None:
        """Prepare counting, before the header is sent; durable on return.

        Args:
            group_id: id that the header's tasks carry.
            body: signature to send when the header is complete, frozen.
            size: number of tasks that will call `chord_part`.
            header: result of the header; its order is the order of the body's argument.
            nested: whether members of the header are groups themselves.

        Raises:
            ImproperlyConfigured: the store cannot do chords.
        """

    @abstractmethod
    def add_to_chord(self, group_id: str, result: Any = None) -> None:
        """Let a chord that has started wait for one task more, whose result will be `result`."""

    # --- housekeeping --------------------------------------------------------------------------

    @abstractmethod
    def cleanup(self) -> None:
        """Remove what has expired, where the store does not do so itself."""

    @abstractmethod
    def close(self) -> None:
        """Flush and let go of connections; the store can be used again afterwards."""
