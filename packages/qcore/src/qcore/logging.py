"""Setting up logging, on request of a worker or a command: `app.log`.

Nothing here runs on import. A receiver of the signal `setup_logging` replaces all of it; receivers of
`after_setup_logger` and `after_setup_task_logger` add to it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from logging.handlers import WatchedFileHandler
from typing import Any, TextIO, cast

from qcore import signals
from qcore.current import get_current_task, get_request
from qcore.redirect import LoggingStream
from qcore.utils.log import (
    BASE_LOGGER,
    REDIRECT_LOGGER,
    TASK_LOGGER,
    get_logger,
    get_task_logger,
    level_number,
)
from qcore.utils.nodes import default_nodename, expand_path

__all__ = ["ColorFormatter", "Logging", "TaskFormatter", "get_logger", "get_task_logger", "level_number"]

_NO_TASK = "???"
_RESET = "\x1b[0m"
_COLORS: Mapping[int, str] = {
    logging.DEBUG: "\x1b[34m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[35m",
}


class ColorFormatter(logging.Formatter):
    """Formats lines, coloured by level when `use_color` is set."""

    def __init__(self, fmt: str | None = None, datefmt: str | None = None, use_color: bool = False) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        line = super().format(record)
        color = _COLORS.get(record.levelno) if self.use_color else None
        return f"{color}{line}{_RESET}" if color else line


class TaskFormatter(ColorFormatter):
    """Knows the fields `task_name` and `task_id`; outside of a task they are `???`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        fields = record.__dict__
        if "task_name" not in fields or "task_id" not in fields:
            task = get_current_task()
            request = None if task is None else get_request(task)
            fields.setdefault("task_name", getattr(task, "name", None) or _NO_TASK)
            fields.setdefault("task_id", getattr(request, "id", None) or _NO_TASK)
        return super().format(record)


class Logging:
    """Logging of one app; its settings `worker_…log…` say how lines look.

    Args:
        app: whose settings count.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.already_setup = False
        self._loglevel = logging.WARNING
        self._logfile: str | None = None
        self._nodename: str | None = None
        self._colorize: bool | None = None

    def setup(
        self,
        loglevel: int | str | None = None,
        logfile: str | os.PathLike[str] | None = None,
        redirect_stdouts: bool = False,
        redirect_level: int | str = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> bool:
        """Set up logging for this process; a second call does nothing.

        Args:
            loglevel: name or number; default WARNING.
            logfile: path, with the variables of `qcore.utils.nodes`; default standard error.
            redirect_stdouts: whether `print` goes to the log.
            redirect_level: at which level.
            colorize: default: on a terminal.
            hostname: node name for the variables.

        Returns:
            Whether handlers were set up by us, and not by a receiver of `setup_logging`.

        Raises:
            ValueError: there is no such level.
        """
        level = level_number(loglevel) or logging.WARNING
        path = None if logfile is None else os.fspath(logfile)
        done = self.setup_logging_subsystem(level, path, colorize=colorize, hostname=hostname)
        if done and redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        self._export(level, path, redirect_stdouts, redirect_level)
        return done

    def setup_logging_subsystem(
        self,
        loglevel: int | str | None = None,
        logfile: str | None = None,
        format: str | None = None,
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> bool:
        """Set up root and task loggers; see `setup`."""
        if self.already_setup:
            return False
        self.already_setup = True
        conf = self.app.conf
        self._loglevel = level_number(loglevel) or logging.WARNING
        self._logfile, self._nodename = logfile, hostname
        self._colorize = conf.worker_log_color if colorize is None else colorize
        format = format or conf.worker_log_format
        told = {"loglevel": self._loglevel, "logfile": logfile, "format": format, "colorize": self._colorize}
        if signals.setup_logging.send(sender=None, **told):
            return False
        root = logging.getLogger()
        if conf.worker_hijack_root_logger:
            for name in (None, BASE_LOGGER, TASK_LOGGER, REDIRECT_LOGGER):
                logging.getLogger(name).handlers = []
        handler = self.make_handler(ColorFormatter, format, conf.worker_log_datefmt)
        root.addHandler(handler)
        root.setLevel(self._loglevel)
        signals.after_setup_logger.send(sender=None, logger=root, **told)
        self.setup_task_loggers()
        return True

    def setup_task_loggers(self, format: str | None = None, propagate: bool = False) -> logging.Logger:
        """Set up the logger above all task loggers."""
        conf = self.app.conf
        format = format or conf.worker_task_log_format
        logger = logging.getLogger(TASK_LOGGER)
        logger.handlers = [self.make_handler(TaskFormatter, format, conf.worker_task_log_datefmt)]
        logger.setLevel(self._loglevel)
        logger.propagate = propagate
        told = {
            "loglevel": self._loglevel,
            "logfile": self._logfile,
            "format": format,
            "colorize": self._colorize,
        }
        signals.after_setup_task_logger.send(sender=None, logger=logger, **told)
        return logger

    def setup_in_child(self, index: int) -> None:
        """Let pool process `index` write to its own log file if the file's name asks for it (`%i`, `%I`)."""
        if self._logfile is None or not self.already_setup:
            return
        main, own = self._path(0), self._path(index)
        if main == own:
            return
        for name in (None, TASK_LOGGER):
            logger = logging.getLogger(name)
            for handler in list(logger.handlers):
                if isinstance(handler, WatchedFileHandler) and handler.baseFilename == os.path.abspath(main):
                    replacement = WatchedFileHandler(own, encoding="utf-8", delay=True)
                    replacement.setFormatter(handler.formatter)
                    logger.removeHandler(handler)
                    logger.addHandler(replacement)
                    handler.close()

    def make_handler(
        self, formatter: type[ColorFormatter], format: str, datefmt: str | None = None
    ) -> logging.Handler:
        """A handler for the log file or for standard error, with the app's colours."""
        handler: logging.Handler
        if self._logfile is None:
            handler = logging.StreamHandler(sys.__stderr__)
        else:
            # Reopens the file after logrotate has moved it.
            handler = WatchedFileHandler(self._path(0), encoding="utf-8", delay=True)
        handler.setFormatter(formatter(format, datefmt, self.supports_color(self._colorize, self._logfile)))
        return handler

    def supports_color(self, colorize: bool | None = None, logfile: str | None = None) -> bool:
        """Whether lines are coloured: if asked for, else on a terminal without log file; never on Windows."""
        if sys.platform == "win32":
            return False
        if colorize is None:
            stream = sys.__stderr__
            return logfile is None and stream is not None and stream.isatty()
        return colorize

    def get_default_logger(self, name: str = BASE_LOGGER) -> logging.Logger:
        """The logger above ours."""
        return logging.getLogger(name)

    def redirect_stdouts(self, loglevel: int | str | None = None, name: str = REDIRECT_LOGGER) -> None:
        """Send `print` to the log at `loglevel`, default WARNING."""
        self.redirect_stdouts_to_logger(logging.getLogger(name), loglevel)

    def redirect_stdouts_to_logger(
        self,
        logger: logging.Logger,
        loglevel: int | str | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> LoggingStream:
        """Put a stream that writes to `logger` in place of standard output and error.

        Returns:
            The stream; whoever calls this keeps the old ones and puts them back.
        """
        stream = LoggingStream(logger, level_number(loglevel) or logging.WARNING)
        replacement = cast("TextIO", stream)
        if stdout:
            sys.stdout = replacement
        if stderr:
            sys.stderr = replacement
        return stream

    def _path(self, index: int) -> str:
        return expand_path(self._logfile or "", self._nodename or default_nodename(), index)

    def _export(self, level: int, logfile: str | None, redirected: bool, redirect_level: int | str) -> None:
        # For processes that are started anew and set up logging as their parent did.
        os.environ.update(
            Q_LOG_LEVEL=str(level),
            Q_LOG_FILE=logfile or "",
            Q_LOG_REDIRECT="1" if redirected else "",
            Q_LOG_REDIRECT_LEVEL=str(redirect_level or ""),
        )
