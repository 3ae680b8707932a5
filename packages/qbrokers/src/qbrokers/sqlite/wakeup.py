"""Waking the consumers of other processes: one named pipe per consumer in a directory beside the database.

A named pipe needs no service, gives a file descriptor to wait on (for a kombu hub as well), has no limit on
the length of its path as sockets have, and one written byte wakes the reader within microseconds. Where named
pipes cannot be made, the consumer falls back to polling.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Iterable

logger = logging.getLogger(__name__)

_DRAIN_BYTES = 65536
SUFFIX = ".wake"


class Waiter:
    """The consumer's side: a descriptor that becomes readable when something may be ready."""

    def __init__(self, path: str) -> None:
        """Create the pipe at `path`."""
        self.path = path
        self.remote = True
        try:
            os.mkfifo(path)
            # Open for both directions: the reader never sees an end of file, the writer never a broken pipe.
            self._read = self._write = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            logger.warning(
                "Cannot make the pipe %s (%s): other processes are noticed by polling.", path, error
            )
            self.remote = False
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def fileno(self) -> int:
        """Return the descriptor to wait on, readable after a wake-up until `clear` is called."""
        return self._read

    def wait(self, seconds: float) -> bool:
        """Sleep until woken, at most for `seconds`; return whether it was woken."""
        return bool(self._poll.poll(max(seconds, 0) * 1000))

    def clear(self) -> None:
        """Forget the wake-ups received so far."""
        try:
            while len(os.read(self._read, _DRAIN_BYTES)) == _DRAIN_BYTES:
                pass
        except BlockingIOError:
            pass

    def wake(self) -> None:
        """Wake this waiter itself, from any thread."""
        _ring(self._write)

    def close(self, remove: bool = True) -> None:
        """Close the pipe, and delete it unless another process goes on using it (after a fork)."""
        for descriptor in {self._read, self._write}:
            os.close(descriptor)
        if remove and self.remote:
            _unlink(self.path)


class Bells:
    """The publisher's side: keeps the pipes of consumers open, and rings them."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()

    def ring(self, tokens: Iterable[str]) -> None:
        """Wake the consumers with these tokens; those that are gone are passed over."""
        with self._lock:
            for token in tokens:
                descriptor = self._descriptors.get(token)
                if descriptor is None:
                    try:
                        path = os.path.join(self._directory, token + SUFFIX)
                        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                    except OSError:
                        # It polls, or is gone.
                        continue
                    self._descriptors[token] = descriptor
                _ring(descriptor)

    def keep_only(self, tokens: set[str]) -> None:
        """Close the pipes of all others."""
        with self._lock:
            for token in self._descriptors.keys() - tokens:
                os.close(self._descriptors.pop(token))

    def close(self) -> None:
        """Close all pipes."""
        self.keep_only(set())

    def forget(self) -> None:
        """In a forked child, where the lock may be held for ever: close all pipes."""
        self._lock = threading.Lock()
        self.close()


def _ring(descriptor: int) -> None:
    try:
        os.write(descriptor, b"\0")
    except BlockingIOError:
        # Full: the reader has a wake-up waiting already.
        pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
