"""The wall clock of chosen processes, set while they run; their monotonic clocks go on as they are."""

from __future__ import annotations

import os
from pathlib import Path

SLEEP = """
# libfaketime takes the absolute monotonic times of clock_nanosleep, with which time.sleep waits, for faked ones.
import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
LEFTOVERS = ("faketime_shm_*", "sem.faketime_sem_*")


class Clock:
    """The clock of the processes that are started with `environment`, servers with `server_environment`.

    Args:
        library: `libfaketimeMT.so.1`.
        file: Where the present setting is written; the processes read it again and again.
    """

    def __init__(self, library: str, file: Path) -> None:
        self._file = file
        self._before = _leftovers()
        self.set(0)
        start_up = file.with_suffix(".start-up")
        start_up.mkdir()
        (start_up / "sitecustomize.py").write_text(SLEEP)
        self.environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(start_up), os.environ.get("PYTHONPATH")])),
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        # jemalloc, which a server may use, asks for the time before the library is ready to tell it.
        self.server_environment = self.environment | {"LD_PRELOAD": f"{library}:libc.so.6"}

    def set(self, seconds: int) -> None:
        """From now on the clock is so many seconds ahead of the machine's (negative: behind)."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        written.rename(self._file)  # nobody reads half a line

    def close(self) -> None:
        """Remove what the library leaves in shared memory when its process is killed."""
        for path in _leftovers() - self._before:
            path.unlink(missing_ok=True)


def _leftovers() -> set[Path]:
    return {path for pattern in LEFTOVERS for path in Path("/dev/shm").glob(pattern) if _is_of_the_dead(path)}


def _is_of_the_dead(path: Path) -> bool:
    try:
        os.kill(int(path.name.rpartition("_")[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        pass
    return False
