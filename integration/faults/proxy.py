"""A TCP proxy that misbehaves on demand: it can freeze, cut and refuse the connections it carries."""

from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType


class Proxy:
    """Carries connections from a free loopback port to a server.

    `freeze()` leaves connections open and carries nothing, as a half-open socket does; what arrives
    meanwhile is carried after `thaw()`. `abandon()` does so for ever, and to the connections of this moment alone, as
    a router does that has forgotten them. `cut()` closes every connection; `refuse()` closes new ones, too,
    until `accept()`.

    Args:
        host: Address of the server.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._frozen = threading.Event()
        self._refusing = False
        self._holding = False
        self._held: list[tuple[socket.socket, bytes]] = []
        self._abandoned: list[socket.socket] = []
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.bytes_to_server = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._thread.join(5)
        self.cut()
        for end in self._abandoned:
            end.close()
        self._listener.close()
        self._selector.close()

    @property
    def connections(self) -> int:
        return len(self._peers) // 2

    def freeze(self) -> None:
        self._frozen.set()

    def hold_replies(self) -> None:
        """Carry commands to the server, and keep its replies back until `thaw`."""
        self._holding = True

    def thaw(self) -> None:
        self._frozen.clear()
        self._holding = False
        with self._lock:
            held, self._held = self._held, []
            for end, data in held:
                if end in self._peers:
                    end.sendall(data)

    def abandon(self) -> None:
        with self._lock:
            for end in self._peers:
                self._selector.unregister(end)
            self._abandoned += self._peers
            self._peers.clear()

    def cut(self) -> None:
        with self._lock:
            for end in tuple(self._peers):
                self._close(end)

    def refuse(self) -> None:
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        self._refusing = False

    def _run(self) -> None:
        while not self._closing:
            ready = self._selector.select(0.02)
            if self._frozen.is_set():
                # Readable descriptors stay readable: without a pause this loop would spin.
                threading.Event().wait(0.02)
                continue
            with self._lock:
                for key, _ in ready:
                    self._serve(key.fileobj)  # type: ignore[arg-type]

    def _serve(self, end: socket.socket) -> None:
        if end is self._listener:
            self._open()
        elif end in self._peers:
            self._carry(end)

    def _open(self) -> None:
        client, _ = self._listener.accept()
        if self._refusing:
            client.close()
            return
        try:
            server = socket.create_connection(self._target, timeout=2)
        except OSError:
            client.close()
            return
        for end, other in ((client, server), (server, client)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(5)
            self._peers[end] = other
            self._selector.register(end, selectors.EVENT_READ)

    def _carry(self, end: socket.socket) -> None:
        other = self._peers[end]
        try:
            data = end.recv(1 << 16)
            to_server = other.getpeername()[1] == self._target[1]
            if data and self._holding and not to_server:
                self._held.append((other, data))
            elif data:
                other.sendall(data)
                self.bytes_to_server += len(data) if to_server else 0
        except OSError:
            data = b""
        if not data:
            self._close(end)

    def _close(self, end: socket.socket) -> None:
        other = self._peers.pop(end, None)
        for one in (end, other):
            if one is None:
                continue
            self._peers.pop(one, None)
            try:
                self._selector.unregister(one)
            except (KeyError, ValueError):
                pass  # closed a moment ago
            one.close()
