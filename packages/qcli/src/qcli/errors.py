"""Errors become one line that says what to do, and an exit code (those of `sysexits.h`).

0 ok · 1 failure · 64 usage · 69 nobody answered, or the broker is away · 73 a file cannot be created · 78 configuration
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

EX_FAILURE = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73
EX_CONFIG = 78


class Problem(click.ClickException):
    """Ends the command with a line on stderr."""

    def __init__(self, message: str, exit_code: int = EX_FAILURE) -> None:
        super().__init__(message)
        self._exit_code = exit_code
        context = click.get_current_context(silent=True)
        self._as_json = bool(context is not None and context.params.get("as_json"))

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """What the process ends with."""
        return self._exit_code

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line, and with `--json` an object with the key `error` as well, where answers go."""
        if self._as_json:
            click.echo(json.dumps({"error": self.message}))
        super().show(file)


class UsageProblem(Problem):
    """The command line is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message, EX_USAGE)


class Unavailable(Problem):
    """Nobody answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message, EX_UNAVAILABLE)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the errors that users meet into a `Problem`; anything else passes with its traceback."""
    from qcore import errors
    from qcore.connections import refusal_of

    try:
        yield
    except errors.ImproperlyConfigured as exc:
        raise Problem(f"configuration: {exc}", EX_CONFIG) from exc
    except errors.MissingPackageError as exc:
        raise Problem(str(exc), EX_CONFIG) from exc
    except ImportError as exc:
        # A broken module of the user's: its own traceback is what helps.
        lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
        raise Problem("".join(lines).rstrip(), EX_CONFIG) from exc
    except errors.NotRegistered as exc:
        raise Problem(f"unknown task {exc}") from exc
    except errors.BackendError as exc:
        raise Unavailable(f"the result store: {exc}") from exc
    except Exception as exc:
        if is_connection_error(exc):
            raise Unavailable(refusal_of(exc) or f"the broker cannot be reached: {exc}") from exc
        raise


def is_connection_error(exc: BaseException) -> bool:
    """Whether `exc` says that a broker is away, or refuses to work."""
    from qcore.connections import is_broker_error

    return is_broker_error(exc)
