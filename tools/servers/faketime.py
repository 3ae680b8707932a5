"""libfaketime: no server, but a library that the tests load into processes to set their clocks."""

from __future__ import annotations

from pathlib import Path

from servers.contract import Server, Unavailable

PLACES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime")
FILE = "libfaketimeMT.so.1"
"""The build for programs with threads."""


class Faketime(Server):
    name = "faketime"
    title = "libfaketime"
    variable = "Q_TEST_FAKETIME_LIBRARY"
    port = 0
    packages = ("libfaketime",)

    def answers(self, port: int) -> bool:
        return False

    def claim(self, port: int, label: str) -> str:
        raise Unavailable("it is no server")

    def release(self) -> None:
        pass

    def start(self, directory: Path) -> str:
        """Returns the path of the library, which `LD_PRELOAD` takes."""
        for place in PLACES:
            for path in sorted(Path("/").glob(f"{place[1:]}/{FILE}")):
                return str(path)
        raise Unavailable(f"{FILE} is not installed")

    def stop(self) -> None:
        pass
