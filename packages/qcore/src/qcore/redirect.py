"""A text stream whose lines become log records."""

from __future__ import annotations

import io
import logging
import sys
import threading


class LoggingStream(io.TextIOBase):
    """Writes each full line to a logger; a line without its end waits for it, or for `flush`.

    Each thread has a line of its own, so that lines of several threads do not mix.

    Args:
        logger: where lines go.
        level: number of the level.
    """

    def __init__(self, logger: logging.Logger, level: int) -> None:
        super().__init__()
        self.logger = logger
        self.level = level
        self._local = threading.local()

    def write(self, text: str) -> int:
        """Take `text`; returns its length."""
        if getattr(self._local, "busy", False):
            # Logging itself complains about something: it must not be asked to log that.
            if sys.__stderr__ is not None:
                sys.__stderr__.write(text)
            return len(text)
        *lines, rest = (getattr(self._local, "line", "") + text).split("\n")
        self._local.line = rest
        for line in lines:
            self._log(line)
        return len(text)

    def flush(self) -> None:
        """Log a line that has not been ended."""
        line = getattr(self._local, "line", "")
        if line and not getattr(self._local, "busy", False):
            self._local.line = ""
            self._log(line)

    def _log(self, line: str) -> None:
        if not line.strip():
            return
        self._local.busy = True
        try:
            self.logger.log(self.level, "%s", line.rstrip())
        finally:
            self._local.busy = False

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """False."""
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8."""
        return "utf-8"
