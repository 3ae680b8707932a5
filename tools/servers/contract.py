"""What the tests ask of a server: be found or started, give a corner of its own, be left as it was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar


class Unavailable(Exception):
    """This way of getting the server does not work here; the text says why."""


class Server(ABC):
    """One kind of server.

    Either `claim` is called (a server was there) and then `release`, or `start` (it was not) and then `stop`.
    """

    name: ClassVar[str]
    """Short name, as `--only` takes it."""
    title: ClassVar[str]
    variable: ClassVar[str]
    """Environment variable that carries the URL."""
    port: ClassVar[int]
    """Standard port."""
    packages: ClassVar[tuple[str, ...]]
    """Debian packages that bring it."""

    @abstractmethod
    def answers(self, port: int) -> bool:
        """Whether a server of this kind speaks on the loopback port."""

    @abstractmethod
    def claim(self, port: int, label: str) -> str:
        """Take a corner named after `label` on a server that was already there.

        Returns:
            The URL of that corner.

        Raises:
            Unavailable: The server lets nobody in, or has no corner to give.
        """

    @abstractmethod
    def release(self) -> None:
        """Delete what `claim` made, and nothing else."""

    @abstractmethod
    def start(self, directory: Path) -> str:
        """Start a server of our own on a free port, with its files in `directory`.

        Returns:
            Its URL.

        Raises:
            Unavailable: It is not installed, or did not come up; the text says which.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the server that `start` started."""
