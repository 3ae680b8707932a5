"""Installing a server with apt, where we may."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from servers.contract import Unavailable
from servers.process import run

APT_SECONDS = 600.0
POLICY = Path("/usr/sbin/policy-rc.d")
_one_at_a_time = threading.Lock()


def install(packages: Sequence[str]) -> None:
    """Install `packages` without starting their services.

    Raises:
        Unavailable: Not a Debian system, not root, or apt failed.
    """
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Unavailable(f"not installed (on Debian, as root: apt-get install {' '.join(packages)})")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    get = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    with _one_at_a_time, _services_stay_down():
        run([*get, "update"], env=env, timeout_seconds=APT_SECONDS)
        run([*get, "install", "--no-install-recommends", *packages], env=env, timeout_seconds=APT_SECONDS)


@contextmanager
def _services_stay_down() -> Iterator[None]:
    """Debian starts what it installs; code 101 of this script forbids it, and only we use it here."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
