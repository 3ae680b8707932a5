"""Running as a service: pid file, user and group, umask, background."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

from qcli.errors import EX_CANTCREAT, Problem


@contextlib.contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Hold the pid file `path` for this block; one that a dead process left is replaced.

    Raises:
        Problem: a live process holds it, or it cannot be written (exit code 73).
    """
    if path is None:
        yield
        return
    file = Path(path).absolute()
    _remove_stale(file)
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError as exc:
        raise Problem(f"the pid file {file} was taken by another process just now", EX_CANTCREAT) from exc
    except OSError as exc:
        raise Problem(f"cannot write the pid file {file}: {exc.strerror}", EX_CANTCREAT) from exc
    with os.fdopen(descriptor, "w") as out:
        out.write(f"{os.getpid()}\n")
    own = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == own:
            with contextlib.suppress(OSError):
                if read_pid(file) == own:
                    file.unlink()


def read_pid(file: Path) -> int | None:
    """The process id in `file`; None when there is no such file or no number in it."""
    try:
        return int(file.read_text().strip())
    except (OSError, ValueError):
        return None


def _remove_stale(file: Path) -> None:
    if not file.exists():
        return
    pid = read_pid(file)
    if pid is not None and pid != os.getpid() and is_alive(pid):
        raise Problem(
            f"the pid file {file} says that process {pid} runs already: stop it first, or choose another --pidfile",
            EX_CANTCREAT,
        )
    try:
        file.unlink()
    except OSError as exc:
        raise Problem(f"cannot replace the stale pid file {file}: {exc.strerror}", EX_CANTCREAT) from exc


def is_alive(pid: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def become(uid: str | None, gid: str | None, umask: str | None) -> None:
    """Take on another group, user and file mode mask.

    Raises:
        Problem: there is no such user or group, or we may not become it.
    """
    if umask is not None:
        try:
            os.umask(int(umask, 8))
        except ValueError as exc:
            raise Problem(f"--umask: {umask!r} is no octal number such as 022", 64) from exc
    user = _user(uid)
    group = _group(gid)
    try:
        if group is not None:
            os.setgid(group)
        if user is not None:
            os.initgroups(user.pw_name, user.pw_gid if group is None else group)
            if group is None:
                os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
    except PermissionError as exc:
        raise Problem("--uid and --gid work only for root") from exc


def _user(name: str | None) -> pwd.struct_passwd | None:
    if name is None:
        return None
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError as exc:
        raise Problem(f"--uid: there is no user {name!r}", 64) from exc


def _group(name: str | None) -> int | None:
    if name is None:
        return None
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as exc:
        raise Problem(f"--gid: there is no group {name!r}", 64) from exc


def detach() -> None:
    """Go on in the background, in a session of its own and without a terminal; the caller's process exits with 0."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            os.dup2(null, stream.fileno())
    os.close(null)
