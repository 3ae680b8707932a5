"""From a bare Python to hatch and its environments, all inside the project.

`.venv` holds hatch; `.hatch` holds its environments, settings and data. Both are made when missing, reused
when sound, made anew when broken or of another Python. Several processes may do this at once: one works, the
others wait for it. Needs only the standard library and pip.

    bootstrap.py hatch ARGUMENT…       hatch itself
    bootstrap.py env NAME COMMAND…     a command of the hatch environment NAME, in the current directory
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
HATCH_HOME = ROOT / ".hatch"
REQUIREMENTS = ("hatch>=1.16,<2",)
INSTALL_SECONDS = 900.0


def main(argv: Sequence[str]) -> NoReturn:
    if argv[:1] == ["hatch"]:
        ensure_hatch()
        run([str(hatch()), *argv[1:]])
    if argv[:1] == ["env"] and len(argv) > 2:
        python = ensure_environment(argv[1])
        paths = [str(ROOT / "tools"), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        run([str(python.parent / argv[2]), *argv[3:]])
    sys.exit(__doc__)


def hatch() -> Path:
    return VENV / "bin" / "hatch"


def environment() -> dict[str, str]:
    """The process environment in which hatch keeps to this project and takes its own uv as installer."""
    env = dict(os.environ)
    for name in ("VIRTUAL_ENV", "PYTHONHOME", "HATCH_ENV", "HATCH_ENV_ACTIVE"):
        env.pop(name, None)
    env |= {
        "HATCH_CONFIG": str(HATCH_HOME / "config.toml"),
        "HATCH_DATA_DIR": str(HATCH_HOME / "data"),
        "HATCH_CACHE_DIR": str(HATCH_HOME / "cache"),
        "HATCH_ENV_TYPE_VIRTUAL_UV_PATH": str(VENV / "bin" / "uv"),
        "PATH": os.pathsep.join([env.get("PATH", os.defpath), str(VENV / "bin")]),
    }
    return _index_settings() | env


def run(argv: Sequence[str]) -> NoReturn:
    """Become the command: signals and the exit code are its own."""
    sys.stdout.flush()
    os.execve(argv[0], list(argv), environment())


def ensure_hatch() -> None:
    """Make `.venv` with hatch in it, unless it is there and sound.

    Raises:
        SystemExit: It cannot be made; the text has pip's last words.
    """
    if _venv_is_sound():
        return
    with _only_me():
        if not _venv_is_sound():
            _make_venv()


def ensure_environment(name: str) -> Path:
    """Make the hatch environment `name`, or bring it up to date with the packages' declarations.

    Returns:
        Its Python interpreter.

    Raises:
        SystemExit: It cannot be made; hatch's output says why.
    """
    ensure_hatch()
    stamp = HATCH_HOME / "stamps" / f"{name}.json"
    python, wanted = HATCH_HOME / name / "bin" / "python", _declarations()
    if _read(stamp) != wanted or not works(python):
        with _only_me():
            if _read(stamp) != wanted or not works(python):
                _make_environment(name)
                stamp.parent.mkdir(exist_ok=True)
                stamp.write_text(wanted)
    return python


def _venv_is_sound() -> bool:
    return _read(VENV / "bootstrap.json") == _marker() and works(VENV / "bin" / "python", "import hatch, uv")


def _marker() -> str:
    """What `.venv` was made of; where it stands too, since it does not survive a move."""
    return json.dumps([sys.version, sys.base_prefix, REQUIREMENTS, str(ROOT)])


def _make_venv() -> None:
    """The base Python's pip installs into it, so a Python without ensurepip (Debian's) will do as well."""
    print(f"Making {VENV.name} with hatch on Python {sys.version.split()[0]}", file=sys.stderr)
    shutil.rmtree(VENV, ignore_errors=True)
    has_pip = works(Path(sys.executable), "import pip")
    _call([sys.executable, "-m", "venv", *(["--without-pip"] if has_pip else []), str(VENV)])
    python = str(VENV / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"]
    _call([*pip, "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS])
    (HATCH_HOME / "config.toml").write_text('[dirs.env]\nvirtual = ".hatch"\n')
    (VENV / "bootstrap.json").write_text(_marker())


def _make_environment(name: str) -> None:
    """From scratch: hatch does not follow changed entry points and versions of the members."""
    print(f"Making the environment {name}", file=sys.stderr)
    shutil.rmtree(HATCH_HOME / name, ignore_errors=True)
    _call([str(hatch()), "env", "remove", name])
    _call([str(hatch()), "env", "create", name])


def _declarations() -> str:
    """A fingerprint of all that decides what an environment has to contain."""
    digest = hashlib.sha256(_marker().encode())
    for path in [ROOT / "hatch.toml", *sorted(ROOT.glob("packages/*/pyproject.toml"))]:
        digest.update(path.read_bytes())
    for path in sorted(ROOT.glob("packages/*/src/*/__init__.py")):
        digest.update("".join(re.findall(r"^__version__.*", path.read_text(), re.MULTILINE)).encode())
    return digest.hexdigest()


def _index_settings() -> dict[str, str]:
    """What pip is told of indexes and certificates, in uv's words; what uv was told itself goes before."""
    if any(name.startswith("UV_") and "INDEX" in name for name in os.environ):
        return {}
    index, cert = os.environ.get("PIP_INDEX_URL"), os.environ.get("PIP_CERT")
    return {
        **({"UV_DEFAULT_INDEX": index} if index else {}),
        **({"SSL_CERT_FILE": cert} if cert else {}),
    }


def works(python: Path, statement: str = "pass") -> bool:
    try:
        return subprocess.run([python, "-c", statement], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _call(argv: Sequence[str]) -> None:
    """Run a step of the installation; its output is shown only when it fails."""
    done = subprocess.run(
        argv,
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed with {done.returncode}: {' '.join(argv)}")


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


@contextmanager
def _only_me() -> Iterator[None]:
    HATCH_HOME.mkdir(exist_ok=True)
    with (HATCH_HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main(sys.argv[1:])
