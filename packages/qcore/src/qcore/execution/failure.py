"""An exception with its traceback as text: what hooks, signals, the store and the log get."""

from __future__ import annotations

import traceback as traceback_module
from types import TracebackType

from attrs import frozen


@frozen
class Failure:
    """What handlers know as `einfo`."""

    exception: BaseException
    traceback: str
    path: str
    """Dotted path of the exception's class."""

    @property
    def type(self) -> type[BaseException]:
        """Class of the exception."""
        return type(self.exception)

    @property
    def tb(self) -> TracebackType | None:
        """The traceback object."""
        return self.exception.__traceback__

    @classmethod
    def of(cls, exception: BaseException, cut: int = 0) -> Failure:
        """The failure that `exception` is.

        Args:
            cut: frames of our own code at the top of the traceback, left out of the text.
        """
        kind = type(exception)
        return cls(exception, format_traceback(exception, cut), f"{kind.__module__}.{kind.__qualname__}")

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<Failure: {self.exception!r}>"


def format_traceback(exception: BaseException, cut: int = 0) -> str:
    """The text of the traceback; never raises, whatever the exception's own methods do."""
    trace = exception.__traceback__
    for _ in range(cut - 1):
        if trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
    try:
        return "".join(traceback_module.format_exception(type(exception), exception, trace))
    except Exception as broken:  # noqa: BLE001 - foreign __str__, __cause__ …; the task's failure must be told anyway
        return f"{type(exception).__module__}.{type(exception).__qualname__} (no traceback: {type(broken).__name__})\n"
