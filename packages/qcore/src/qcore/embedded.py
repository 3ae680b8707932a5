"""The embedded default: with no broker configured anywhere, SQLite files below the working directory serve.

`.q/broker.db` holds the messages and `.q/results.db` the results. They are durable and serve several
processes on one machine. The directory is made on first use, with a `.gitignore` that keeps it out of
repositories.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs

from qcore.errors import ImproperlyConfigured

DIRECTORY = ".q"
_BROKER_SETTINGS = (
    "broker_url",
    "broker_read_url",
    "broker_write_url",
    "broker_transport",
    "broker_host",
)


@attrs.frozen
class EmbeddedDefault:
    """Where the embedded broker and result store are.

    Attributes:
        directory: absolute path of the directory.
    """

    directory: Path

    @property
    def broker_url(self) -> str:
        """URL of the broker."""
        return f"sqlite:///{quote(str(self.directory / 'broker.db'))}"

    @property
    def result_backend(self) -> str:
        """URL of the result store."""
        return f"db+sqlite:///{quote(str(self.directory / 'results.db'))}"

    def ensure(self) -> EmbeddedDefault:
        """Make the directory and its `.gitignore`; returns itself.

        Raises:
            ImproperlyConfigured: it cannot be made there.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            ignore = self.directory / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as exc:
            raise ImproperlyConfigured(
                f"no broker is configured, and the embedded one cannot be made in {self.directory}: {exc}; "
                "set broker_url (or Q_BROKER_URL), or start in a directory that can be written"
            ) from exc
        return self

    def __str__(self) -> str:
        return f"embedded broker and result store in {self.directory}"


def embedded_default(conf: Any) -> EmbeddedDefault | None:
    """The embedded default if it is in force for these settings, else None."""
    if any(conf[name] for name in _BROKER_SETTINGS):
        return None
    return EmbeddedDefault(Path(os.getcwd()) / DIRECTORY)
