"""Frames, and how a stream is cut into them."""

from __future__ import annotations

import pytest

from qworker.pools import frames
from qworker.pools.frames import JOBS, FrameReader, encode


def test_a_frame_survives_any_cut():
    sent = [[JOBS, 1, ["a", b"b", None], None], [JOBS, 4, [{"k": 1.5}], [2.0]]]
    stream = b"".join(map(encode, sent))
    for size in range(1, len(stream) + 1):
        reader = FrameReader()
        got = [
            frame
            for start in range(0, len(stream), size)
            for frame in reader.feed(stream[start : start + size])
        ]
        assert got == sent


def test_a_frame_beyond_the_length_field_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    with pytest.raises(ValueError, match="too large to hand to a child"):
        encode([JOBS, 1, [b"x" * 200], None])
