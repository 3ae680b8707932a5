"""Frames to and from the socket, many at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Any

from qbrokers.amqp.bases import UnexpectedFrame, stock_frame_writer

_HEAD = Struct(">BHI")
_SIZE = Struct(">I")
_END = 0xCE

Frame = tuple[int, int, bytes]
"""Type, channel, payload."""


class FrameReader:
    """Cuts what was read into frames; a socket read brings many."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """More bytes came."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    @property
    def ready(self) -> bool:
        """Whether a complete frame waits."""
        data, at = self._data, self._at
        return len(data) - at >= 8 and len(data) > at + 7 + _SIZE.unpack_from(data, at + 3)[0]

    def next(self) -> Frame | None:
        """The next complete frame; None when more must be read.

        Raises:
            UnexpectedFrame: The peer does not speak AMQP.
        """
        data, at = self._data, self._at
        if len(data) - at < 8:
            return None
        kind, channel, size = _HEAD.unpack_from(data, at)
        end = at + 7 + size
        if len(data) <= end:
            return None
        if data[end] != _END:
            raise UnexpectedFrame(f"frame ends with {data[end]:#04x} instead of 0xce")
        self._at = end + 1
        return kind, channel, data[at + 7 : end]


class CorkedWriter:
    """Stands for py-amqp's transport as the target of its frame writer: collects frames while it is corked.

    Args:
        transport: Writes to the socket.
        limit_bytes: What was collected is written when it reaches this size.
    """

    def __init__(self, transport: Any, limit_bytes: int) -> None:
        self._transport = transport
        self._limit = limit_bytes
        self._lock = threading.RLock()
        self._depth = 0
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> None:
        """Write the bytes of one or more frames, now or at the end of `corked`."""
        with self._lock:
            if not self._depth:
                self._transport.write(data)
                return
            self._parts.append(bytes(data))
            self._size += len(data)
            if self._size >= self._limit:
                self._send()

    def _send(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            self._transport.write(b"".join(parts))

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Everything written in this block leaves in one piece at its end, in a few when it is large."""
        with self._lock:
            self._depth += 1
            try:
                yield
            except BaseException:
                if self._depth == 1:
                    # Frames before the failure are whole; the server may as well have them.
                    self._depth = 0
                    try:
                        self._send()
                    finally:
                        self._depth = 1
                raise
            else:
                if self._depth == 1:
                    self._send()
            finally:
                self._depth -= 1


def corking_frame_writer(connection: Any, transport: Any) -> Any:
    """py-amqp's frame writer over a `CorkedWriter`, which the connection gets as `writer`."""
    connection.writer = CorkedWriter(transport, connection.options.max_write_bytes)
    return stock_frame_writer(connection, connection.writer)
