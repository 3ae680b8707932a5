"""Environments of their own for other task queues: peers of tests and benchmarks, never parts of ours."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bootstrap

PEERS = bootstrap.HATCH_HOME / "peers"
CELERY = ("celery[redis]>=5.5,<6", "hiredis>=3", "SQLAlchemy>=2", "attrs>=24.2")
"""With what its tests need: a database as result store, and what our transports import."""
INSTALL_SECONDS = 600.0


class PeerError(Exception):
    """A peer's environment cannot be made; the text has the installer's output."""


def peer_python(name: str, requirements: tuple[str, ...]) -> Path:
    """The Python of an environment with `requirements`, made on first use and kept under `.hatch/peers`.

    Raises:
        PeerError: The installation failed.
    """
    print_of = hashlib.sha256(repr((requirements, sys.version, str(PEERS))).encode()).hexdigest()[:10]
    place = PEERS / f"{name}-{print_of}"
    python = place / "bin" / "python"
    PEERS.mkdir(parents=True, exist_ok=True)
    with (PEERS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists() or not bootstrap.works(python):
            shutil.rmtree(place, ignore_errors=True)
            _install(place, python, requirements)
            (place / "complete").touch()
    return python


def _install(place: Path, python: Path, requirements: tuple[str, ...]) -> None:
    uv = bootstrap.VENV / "bin" / "uv"
    base = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
    if uv.exists():
        _call([str(uv), "venv", "--quiet", "--python", base, str(place)])
        _call([str(uv), "pip", "install", "--quiet", "--python", str(python), *requirements])
    else:
        _call([base, "-m", "venv", str(place)])
        _call([str(python), "-m", "pip", "install", "--quiet", *requirements])


def _call(argv: list[str]) -> None:
    env = bootstrap.environment()
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False, cwd=os.sep
    )
    if done.returncode:
        raise PeerError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
