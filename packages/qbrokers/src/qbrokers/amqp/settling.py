"""The book of one channel's messages: which are unanswered, which answers wait to be sent.

Knows nothing of sockets, so that its rule can be tested alone: an answer on the wire never covers a message that
was not answered. AMQP can acknowledge everything up to a tag at once; that is done exactly when every message up
to it was acknowledged, or rejected by a frame before it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

ACK = 80
REJECT = 90

# Frame type, channel, size of the payload; class 60, method, tag, flag; the end of the frame.
_FRAME = Struct(">BHIHHQBB")


class Answer(NamedTuple):
    """A method frame: `ACK` with the flag "multiple", or `REJECT` with the flag "requeue"."""

    method: int
    tag: int
    flag: bool

    def frame(self, channel: int, base: int) -> bytes:
        """The frame's bytes, for the server's tag, which is `base` lower than ours."""
        return _FRAME.pack(1, channel, 13, 60, self.method, self.tag - base, self.flag, 0xCE)


class Book:
    """Delivered messages by tag; tags only grow. May be used by the program and by a thread that sends."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.last_tag = 0
        self._open: dict[int, object] = {}
        """Unanswered as the server sees it, in order of tags."""
        self._acked: set[int] = set()
        self._rejected: dict[int, bool] = {}
        self._ours: set[int] = set()
        """Held by the channel itself, so that a program's "all up to" does not mean them."""

    def __len__(self) -> int:
        return len(self._open)

    def delivered(self, tag: int, message: object, ours: bool = False) -> None:
        """A message came that must be answered."""
        with self._lock:
            self.last_tag = max(self.last_tag, tag)
            self._open[tag] = message
            if ours:
                self._ours.add(tag)

    def seen(self, tag: int) -> None:
        """A message came that needs no answer."""
        self.last_tag = max(self.last_tag, tag)

    def hand_over(self, tag: int) -> None:
        """A message the channel held goes to the program after all."""
        self._ours.discard(tag)

    def message(self, tag: int) -> object:
        """What was delivered under an unanswered tag.

        Raises:
            KeyError: There is none.
        """
        if tag in self._acked or tag in self._rejected:
            raise KeyError(tag)
        return self._open[tag]

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge one message, or all up to it (tag 0: all). Answers given before are left alone.

        Raises:
            ValueError: No message with such a tag was ever delivered.
        """
        self._check(tag, multiple)
        with self._lock:
            if not multiple:
                if tag in self._open and tag not in self._rejected:
                    self._acked.add(tag)
                return
            for each in self._open:
                if tag and each > tag:
                    break
                if each not in self._rejected and each not in self._ours:
                    self._acked.add(each)

    def reject(self, tag: int, requeue: bool) -> None:
        """Reject one message.

        Raises:
            ValueError: No message with such a tag was ever delivered.
        """
        self._check(tag, False)
        with self._lock:
            if tag in self._open and tag not in self._acked:
                self._rejected.setdefault(tag, requeue)

    def _check(self, tag: int, multiple: bool) -> None:
        if tag > self.last_tag or tag < 0 or (tag == 0 and not multiple):
            raise ValueError(f"no message with the delivery tag {tag!r} was delivered on this channel")

    @property
    def waiting(self) -> bool:
        """Whether there are answers to send."""
        return bool(self._acked or self._rejected)

    def take(self) -> list[Answer]:
        """The answers to send, in this order; they are out of the book."""
        with self._lock:
            if not self._acked and not self._rejected:
                return []
            answers = [Answer(REJECT, tag, requeue) for tag, requeue in self._rejected.items()]
            for tag in self._rejected:
                del self._open[tag]
                self._ours.discard(tag)
            self._rejected = {}
            answers.extend(self._acknowledgements())
            self._acked = set()
            return answers

    def _acknowledgements(self) -> Iterator[Answer]:
        acked, opened = self._acked, self._open
        run = []
        for tag in opened:
            if tag not in acked:
                break
            run.append(tag)
        if run:
            yield Answer(ACK, run[-1], len(run) > 1)
            acked = acked.difference(run)
            self._ours.difference_update(run)
            if len(run) == len(opened):
                self._open = {}
            else:
                for tag in run:
                    del opened[tag]
        for tag in sorted(acked):
            yield Answer(ACK, tag, False)
            del opened[tag]
            self._ours.discard(tag)

    def clear(self) -> None:
        """The server has taken everything back; late answers find nothing."""
        with self._lock:
            self._open = {}
            self._acked = set()
            self._rejected = {}
            self._ours = set()
