"""Child processes that are started for the tests, and ended by their process id."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from servers.contract import Unavailable

START_SECONDS = 90.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_binary(*names: str) -> str:
    """The first of `names` found in PATH and the usual places of servers.

    Raises:
        Unavailable: None of them is installed.
    """
    places = [os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/bin"]
    places += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    for name in names:
        found = shutil.which(name, path=os.pathsep.join(places))
        if found:
            return found
    raise Unavailable(f"{names[0]} is not installed")


def unprivileged_user(*names: str) -> str | None:
    """Who to run a server as that refuses to run as root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise Unavailable(f"must not run as root, and none of the users {', '.join(names)}, nobody exists")


def hand_over(directory: Path, user: str | None) -> None:
    """Let `user` write in `directory` and reach it."""
    if user is not None:
        shutil.chown(directory, user)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    timeout_seconds: float = START_SECONDS,
) -> str:
    """Run a command to its end.

    Returns:
        What it wrote to standard output.

    Raises:
        Unavailable: It failed or took too long; the text has the end of its output.
    """
    try:
        done = subprocess.run(
            argv,
            env=dict(os.environ, **(env or {})),
            user=user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{Path(argv[0]).name}: {error}") from error
    if done.returncode:
        output = (done.stderr + done.stdout).strip().splitlines()
        raise Unavailable(f"{Path(argv[0]).name} failed ({done.returncode}): {' / '.join(output[-3:])}")
    return done.stdout


class OwnProcess:
    """A server process of ours, in a process group of its own; output goes to a log file."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = Path(argv[0]).name
        self.log = directory / f"{self.name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                env=dict(os.environ, **(env or {})),
                user=user,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until `ready()`.

        Raises:
            Unavailable: The process ended, or was not ready in time; it is ended then.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self.stop()
                tail = self.log.read_text(errors="replace").strip().splitlines()[-3:]
                why = "did not answer in time" if code is None else f"ended with {code}"
                raise Unavailable(f"{self.name} {why}: {' / '.join(tail)}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End the process and its group without a word, as a crash does."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def stop(self) -> None:
        """End the process: politely, then the whole group by force."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self._process.wait()
