"""What a child process does first, and what it can tell about itself.

Whatever a child needs is imported here, in the parent: an import in every child costs more than its fork.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

from billiard import compat, util  # noqa: F401 - see above: billiard imports them in the child
from billiard.process import current_process

try:
    import setproctitle  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    setproctitle = None  # type: ignore[assignment, unused-ignore]

_PR_SET_PDEATHSIG = 1
_PAGE_KIB = resource.getpagesize() // 1024
_DEFAULT_SIGNALS = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCHLD,
)


def prepare_process(title: str, index: int, parent_pid: int, parent_death_signal: int | None) -> None:
    """Signals, name, tie to the parent; to be called right after the fork."""
    signal.set_wakeup_fd(-1)
    for signum in _DEFAULT_SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    # Ctrl-C reaches the whole terminal group: the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent_death_signal is not None:
        die_with_parent(parent_pid, parent_death_signal)
    process = current_process()
    process.index = index
    # Tasks may start processes of their own.
    process._config.pop("daemon", None)
    events = sys.modules.get("kombu.asynchronous")
    if events is not None:
        events.set_event_loop(None)
    set_title(title)


def die_with_parent(parent_pid: int, signum: int) -> None:
    """Have the kernel send us `signum` when the thread that forked us ends (Linux; elsewhere nothing)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signum)


def set_title(title: str) -> None:
    """Show `title` in process lists, if the package setproctitle is there."""
    if setproctitle is not None:
        setproctitle.setproctitle(title)


def resident_kib() -> int:
    """Resident memory of this process in KiB: the present one on Linux, elsewhere the peak."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_KIB
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak
