"""Loggers for task code.

```python
from qcore.utils.log import get_task_logger

logger = get_task_logger(__name__)
```
"""

from __future__ import annotations

import logging

BASE_LOGGER = "q"
TASK_LOGGER = "q.task"
REDIRECT_LOGGER = "q.redirected"
_RESERVED = frozenset({BASE_LOGGER, TASK_LOGGER})

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}


def level_number(level: int | str | None) -> int:
    """The number of a level given by name (`info`, `INFO`), text or number; None is 0.

    Raises:
        ValueError: there is no such level.
    """
    if level is None or isinstance(level, int):
        return level or 0
    name = level.strip().upper()
    if name.isdigit():
        return int(name)
    number = LEVELS.get(name, logging.getLevelName(name))
    if not isinstance(number, int):
        raise ValueError(f"no such log level: {level!r}; use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return number


def get_logger(name: str) -> logging.Logger:
    """A logger for code that is not a task's."""
    return logging.getLogger(name)


def get_task_logger(name: str) -> logging.Logger:
    """A logger whose lines show the name and id of the task that is running.

    Raises:
        RuntimeError: `name` is one of ours.
    """
    if name in _RESERVED:
        raise RuntimeError(f"the logger name {name!r} is reserved: use get_task_logger(__name__)")
    logger = logging.getLogger(name)
    parent = logging.getLogger(TASK_LOGGER)
    if not _descends(logger, parent):
        logger.parent = parent
    return logger


def _descends(logger: logging.Logger, ancestor: logging.Logger) -> bool:
    found: logging.Logger | None = logger
    while found is not None:
        if found is ancestor:
            return True
        found = found.parent
    return False
