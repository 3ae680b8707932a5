"""The store that keeps nothing: a broker is configured, a result backend is not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from qcore.errors import ImproperlyConfigured

from .base import BaseBackend
from .contract import GroupLike, OnRecord
from .record import RequestLike, ResultRecord


class DisabledBackend(BaseBackend):
    """Writing does nothing; asking for a result raises ImproperlyConfigured and says what to set."""

    supports_native_join = False
    supports_chords = False
    persistent = False
    writes_nothing = True

    def _refuse(self) -> NoReturn:
        raise ImproperlyConfigured(
            "results are disabled: no result_backend is configured. Set result_backend (or Q_RESULT_BACKEND), for "
            "example to 'redis://localhost/0' or 'db+sqlite:///results.db', in clients and workers alike"
        )

    def store(self, record: ResultRecord) -> None:
        return None

    def chord_part(self, request: RequestLike, state: str, result: Any) -> None:
        return None

    def flush(self) -> None:
        return None

    def get(self, task_id: str) -> ResultRecord:
        self._refuse()

    def get_many(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        self._refuse()

    def _read(self, task_ids: Sequence[str]) -> dict[str, ResultRecord]:
        self._refuse()

    def wait(
        self,
        task_ids: Collection[str],
        timeout: float | None = None,
        *,
        interval: float | None = None,
        on_message: OnRecord | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[ResultRecord]:
        self._refuse()

    def watch(self, task_id: str, callback: OnRecord) -> Callable[[], None]:
        self._refuse()

    async def await_record(self, task_id: str, timeout: float | None = None) -> ResultRecord:
        self._refuse()

    def forget(self, task_id: str) -> None:
        return None

    def save_group(self, group: GroupLike) -> None:
        self._refuse()

    def restore_group(self, group_id: str) -> Any | None:
        self._refuse()

    def delete_group(self, group_id: str) -> None:
        return None

    def start_chord(
        self, group_id: str, body: Mapping[str, Any], size: int, header: GroupLike, nested: bool
    ) -> None:
        self._refuse()
