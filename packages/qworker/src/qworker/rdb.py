"""A debugger for processes without a terminal: `pdb` over a socket.

```python
from qworker import rdb

@app.task
def add(x, y):
    result = x + y
    rdb.set_trace()
    return result
```

The worker logs where to connect to (`telnet 127.0.0.1 6900`); `continue` or `exit` in the session goes on. With the
environment variable `Q_RDBSIG` set, SIGUSR2 opens a session in the worker's main process and in its children.

`Q_RDB_HOST` (127.0.0.1) and `Q_RDB_PORT` (6900) say where it listens. Whoever can connect can run any code.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
from multiprocessing import current_process
from pdb import Pdb
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 6900
PORTS_TRIED = 100

_active: list[Rdb] = []


class Rdb(Pdb):
    """A debugger whose terminal is the first client of a socket.

    Args:
        host: Address to listen on.
        port: First port to try; pool processes begin at their index above it.

    Raises:
        OSError: no port is free.
    """

    def __init__(self, host: str | None = None, port: int | None = None) -> None:
        self.host = host or os.environ.get("Q_RDB_HOST") or DEFAULT_HOST
        base = port if port is not None else int(os.environ.get("Q_RDB_PORT") or DEFAULT_PORT)
        self._server, self.port = listen(self.host, base + int(getattr(current_process(), "index", 0)))
        ident = f"Remote Debugger:{self.port}"
        logger.warning(
            "%s: Please telnet %s %s. Type `exit` in session to continue.", ident, self.host, self.port
        )
        logger.warning("%s: Waiting for client...", ident)
        self._client, address = self._server.accept()
        logger.warning("%s: In session with %s", ident, address)
        # Two files: one for both ways forgets what it has read ahead whenever it writes.
        self._reader = self._client.makefile("r")
        self._writer = self._client.makefile("w")
        super().__init__(completekey="tab", stdin=self._reader, stdout=self._writer)
        self.prompt = "(Pdb) "
        _active.append(self)

    def close(self) -> None:
        """End the session."""
        if self in _active:
            _active.remove(self)
            logger.warning("Remote Debugger:%s: Session ended.", self.port)
        for part in (self._reader, self._writer, self._client, self._server):
            try:
                part.close()
            except OSError:
                pass  # the client has gone already

    def do_continue(self, arg: str) -> bool | None:
        """Go on, and end the session."""
        self.set_continue()
        self.close()
        return True

    do_c = do_cont = do_continue

    def do_quit(self, arg: str) -> bool | None:
        """Go on, and end the session: leaving a remote debugger must not end the task."""
        return self.do_continue(arg)

    do_q = do_exit = do_quit


def listen(host: str, port: int) -> tuple[socket.socket, int]:
    """A listening socket on the first free port from `port` on.

    Raises:
        OSError: none of the ports is free.
    """
    for number in range(port, port + PORTS_TRIED):
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            server.bind((host, number))
        except OSError as exc:
            server.close()
            if exc.errno in (errno.EADDRINUSE, errno.EINVAL):
                continue
            raise
        server.listen(1)
        return server, number
    raise OSError(
        errno.EADDRINUSE,
        f"the remote debugger finds no free port on {host} from {port} to {port + PORTS_TRIED - 1}: "
        "set Q_RDB_PORT to another one",
    )


def debugger() -> Rdb:
    """The open session of this process, else a new one."""
    return _active[0] if _active else Rdb()


def set_trace(frame: FrameType | None = None) -> None:
    """Stop here, and wait for a client."""
    debugger().set_trace(sys._getframe().f_back if frame is None else frame)


def on_signal(number: int, frame: Any) -> None:
    """Handler of SIGUSR2."""
    set_trace(frame)


def install_signal_handler() -> None:
    """Open a session at SIGUSR2, when the environment variable `Q_RDBSIG` is set."""
    if os.environ.get("Q_RDBSIG") and hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, on_signal)
