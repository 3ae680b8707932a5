"""Worker processes of a benchmark: started, weighed, ended by their process ids."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_SECONDS = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Worker:
    """A worker with all its children; output goes to a file."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def pss_bytes(self) -> int:
        """Proportional set size of the whole tree: pages shared between processes count once."""
        return sum(_pss_bytes(pid) for pid in self._tree())

    def cpu_seconds(self) -> float:
        """User and system time of the processes that live."""
        return sum(_cpu_seconds(pid) for pid in self._tree())

    def stop(self) -> None:
        """TERM to the worker, then KILL to whatever is left of its session."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def _tree(self) -> list[int]:
        """The worker and its descendants. They all are in its session, wherever they were re-parented to."""
        pids = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _stat(int(entry.name))
                if fields and int(fields[3]) == self._process.pid:
                    pids.append(int(entry.name))
        return pids


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command name; the session is number 3, the times are 11 and 12."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
