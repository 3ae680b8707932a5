"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Processors of the machine."""
    return os.cpu_count() or 1


def available_cpus(root: Path = CGROUP) -> int:
    """Processors that affinity and the cgroup's quota leave, at least 1; for `--concurrency auto`."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        count = cpu_count()
    quota = _quota(root)
    return max(1, min(count, math.ceil(quota)) if quota else count)


def _quota(root: Path) -> float | None:
    try:
        limit, period = (root / "cpu.max").read_text().split()[:2]  # cgroup v2
    except (OSError, ValueError):
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()  # v1
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in ("max", "-1"):
        return None
    try:
        return int(limit) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
