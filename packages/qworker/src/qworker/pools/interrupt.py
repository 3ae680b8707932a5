"""Raising an exception in a job from outside, but only while its user code runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from threading import RLock
from types import TracebackType
from typing import Any


class Interrupter(ABC):
    """The limiter of one job that runs in this process.

    An interrupt that comes outside a guard, or inside a shield, waits for the next moment at which it may
    strike. A final one is raised again at the end of the guard, should the user's code have swallowed it.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._depth = 0
        self._shields = 0
        self._closed = False
        self._raising = False
        """An exception was sent and may not have arrived."""
        self._waiting: type[BaseException] | None = None
        self._final: type[BaseException] | None = None
        self._detail: object = None

    @abstractmethod
    def _send(self, error: type[BaseException]) -> None:
        """Have `error` raised in the job, soon."""

    @abstractmethod
    def _recall(self) -> None:
        """Take back what was sent and has not arrived."""

    def interrupt(self, error: type[BaseException], detail: object, finally_: bool = False) -> bool:
        """Have `error` raised in the user's code; False if the job is past that."""
        with self._lock:
            if self._closed:
                return False
            self._detail = detail
            if finally_:
                self._final = error
            if self._depth and not self._shields:
                self._raising = True
                self._send(error)
            else:
                self._waiting = error
            return True

    def close(self) -> None:
        """The job has ended."""
        with self._lock:
            self._closed = True

    def guard(self) -> Interrupter:
        return self

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """A coroutine that can be interrupted while it waits; the kinds that run loops say how."""
        return coroutine

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._leave()
            raise waiting(self._detail)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        late = self._leave()
        if late is not None and error is None:
            raise late
        if error is not None and not error.args and self._detail is not None:
            error.args = (self._detail,)
        if self._final is not None and not isinstance(error, self._final):
            raise self._final(self._detail) from error

    def _leave(self) -> BaseException | None:
        """Leave the guard, whatever arrives meanwhile; returns what has."""
        late: BaseException | None = None
        left = False
        while True:
            try:
                with self._lock:
                    if not left:
                        # Nothing arrives between two plain statements: exceptions come with calls.
                        self._depth -= 1
                        left = True
                    if self._depth == 0 and self._raising:
                        self._raising = False
                        self._recall()
                return late
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                late = error

    @contextmanager
    def shield(self) -> Iterator[None]:
        with self._lock:
            self._shields += 1
        try:
            yield
        finally:
            with self._lock:
                self._shields -= 1
                waiting = self._waiting
                if self._shields or not self._depth:
                    waiting = None
                if waiting is not None:
                    self._waiting = None
            if waiting is not None:
                raise waiting(self._detail)
