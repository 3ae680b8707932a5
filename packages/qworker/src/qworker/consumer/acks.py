"""Acknowledgements on AMQP: as few frames as possible per tick.

AMQP can acknowledge everything up to a delivery tag at once. Most tasks end about in the order in which they came, so
one frame stands for many. What has ended out of order is acknowledged by a frame of its own, in the same tick.
"""

from __future__ import annotations

from collections import deque
from typing import Any


class AckWindow:
    """The messages of one channel that are not answered yet, in the order of their delivery tags.

    Args:
        channel: Has `basic_ack(tag, multiple)`.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._open: deque[int] = deque()
        self._answered: set[int] = set()
        """Tags in `_open` that were rejected, or acknowledged by an earlier flush."""
        self._ended: set[int] = set()
        """Tags to acknowledge."""

    def delivered(self, tag: int) -> None:
        """A message came; tags only grow."""
        self._open.append(tag)

    def ack(self, tag: int) -> None:
        """Acknowledge at the next flush."""
        self._ended.add(tag)

    def answered(self, tag: int) -> None:
        """The message was rejected."""
        self._answered.add(tag)

    def flush(self) -> None:
        """Send the acknowledgements.

        Raises:
            One of the transport's errors; the connection is gone, and with it everything that was not sent.
        """
        if not self._ended and not self._answered:
            return
        waiting, ended, answered = self._open, self._ended, self._answered
        last = None
        while waiting and (waiting[0] in ended or waiting[0] in answered):
            tag = waiting.popleft()
            answered.discard(tag)
            if tag in ended:
                ended.discard(tag)
                last = tag
        if last is not None:
            self.channel.basic_ack(last, multiple=True)
        if ended:
            for tag in sorted(ended):
                self.channel.basic_ack(tag, multiple=False)
            answered |= ended
            ended.clear()
