"""Frames between a pool and its child: four bytes of length, then a pickle (protocol 5) of a list.

Parent to child::

    [JOBS, first number, [payload, ...], [soft limit or None, ...] or None]
    [STOP]

Child to parent::

    [READY]
    [FAILED, traceback]                          the runner did not start
    [OUTCOMES, [(number, result, started, runtime[, crash]), ...],
     [(first, end) of skipped numbers, ...], [number with a soft limit raised, ...], resident KiB or 0]

Jobs are numbered per child from 1, without gaps; every number comes back once, as an outcome or as skipped.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Any

JOBS, STOP, READY, FAILED, OUTCOMES = range(5)

_LENGTH = struct.Struct(">I")
_HEAD = _LENGTH.size
MAX_FRAME_BYTES = 2**32 - 1

Frame = list[Any]


def encode(frame: Frame) -> bytes:
    """Bytes of one frame; raises what pickle raises, and ValueError beyond 4 GiB."""
    body = pickle.dumps(frame, 5)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a payload of {len(body)} bytes is too large to hand to a child process")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """All frames that are complete now; consume the iterator before feeding more."""
        buffer = self._buffer
        buffer += data
        offset, available = 0, len(buffer)
        try:
            while available - offset >= _HEAD:
                end = offset + _HEAD + _LENGTH.unpack_from(buffer, offset)[0]
                if end > available:
                    break
                with memoryview(buffer) as view:
                    frame = pickle.loads(view[offset + _HEAD : end])
                offset = end
                yield frame
        finally:
            del buffer[:offset]
