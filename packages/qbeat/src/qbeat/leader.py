"""Which of several beats sends: one leads, the others stand by until it is gone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Protocol

from qcore.errors import ImproperlyConfigured


class Leader(Protocol):
    """A claim to lead."""

    retry_seconds: float
    """How often a beat that stands by asks again, and one that leads confirms."""

    def acquire(self) -> bool:
        """Try to lead, or confirm that this beat still does; false when another one leads."""

    def holds(self) -> bool:
        """Whether this beat may send now; asks nobody, as it is called before each send."""

    def release(self) -> None:
        """Let another one lead."""

    def describe(self) -> str:
        """Who leads, for the log."""


class FileLeader:
    """Leads while it holds the lock of a file, for beats on one machine; the lock goes with the process.

    Args:
        path: The file to lock; it is made, holds the process id of the leader, and stays.
    """

    retry_seconds = 1.0

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Try to lock the file.

        Raises:
            ImproperlyConfigured: The file cannot be made.
        """
        if self._file is not None:
            return True
        import fcntl  # not on Windows; there only this class is missing

        try:
            file = self.path.open("a+")
        except OSError as exc:
            raise ImproperlyConfigured(
                f"cannot write {self.path} ({exc}): give another place for the schedule file with -s or the "
                "setting beat_schedule_filename"
            ) from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file
        return True

    def holds(self) -> bool:
        """Whether the file is locked by this beat."""
        return self._file is not None

    def release(self) -> None:
        """Unlock the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def describe(self) -> str:
        """Who leads, for the log."""
        try:
            return f"process {self.path.read_text() or '?'} holds {self.path}"
        except OSError:
            return f"{self.path} is locked"
