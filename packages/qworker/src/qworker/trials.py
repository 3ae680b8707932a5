"""Suspects: messages that may kill the worker, told apart from those that were merely there when it died.

When a worker dies, every message that it held counts a lost delivery, the killer's and the bystanders'. Nobody is
condemned for that alone. A message that has one delivery left (`broker_max_deliveries` - 1 are lost) is a suspect:

1. It is marked with the header `x-trial` and put back, so that the mark survives us.
2. When it comes again it runs, as the only suspect of its worker; the others wait, unmarked.
3. Lost once more with the mark on it, it is put aside.

So a killer runs `broker_max_deliveries` times, and the bystanders run after it, one after the other.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)

TRIAL = "x-trial"
# Another worker may take the message that was marked here; then the next suspect is not kept waiting longer.
EXPECT_SECONDS = 2.0


class Trials:
    """The suspects of one consumer.

    Args:
        consumer: Whose messages they are.
        max_deliveries: So many lost deliveries end a task.
    """

    def __init__(self, consumer: Consumer, max_deliveries: int) -> None:
        self.consumer = consumer
        self.threshold = max(max_deliveries - 1, 1)
        self.max_deliveries = max_deliveries
        self._line: deque[tuple[Any, int]] = deque()
        self._expected: str | None = None
        self._running: str | None = None
        self._timer: Any = None

    def guilty(self, message: Any, lost: int) -> bool:
        """True when the message has lost its last delivery."""
        mark = message.headers.get(TRIAL)
        if isinstance(mark, int) or self.max_deliveries == 1:
            return lost >= self.max_deliveries and lost != mark
        return False

    def detained(self, message: Any, lost: int) -> bool:
        """True when the message is a suspect that does not run now: it is put back, or waits here."""
        if lost < self.threshold or self.max_deliveries == 1:
            return False
        task_id = message.headers.get("id")
        if task_id in self.consumer.state.requests:
            return False  # it runs here; its message comes again because a connection was lost
        if message.headers.get(TRIAL) != lost:
            self._line.append((message, lost))
            self.consumer.hold_prefetch()
            self._next()
            return True
        if self._running is not None and task_id != self._running:
            self.consumer.dead_letters.put_back(message, changes={TRIAL: None})
            return True
        self._expected = None
        self._running = task_id
        if self.end_of_tick not in self.consumer.tick_hooks:
            self.consumer.tick_hooks.append(self.end_of_tick)
        return False

    def end_of_tick(self) -> None:
        """See whether the suspect that ran is done."""
        if self._running is not None and self._running not in self.consumer.state.requests:
            self._running = None
            self.consumer.tick_hooks.remove(self.end_of_tick)
            self._next()

    def hand_back(self) -> None:
        """The worker stops: return those that wait."""
        line, self._line = self._line, deque()
        for message, lost in line:
            self.consumer.dead_letters.put_back(message, lost)

    def forget(self) -> None:
        """The connection was lost: all of them come again."""
        self._line.clear()
        self._expected = None

    def _next(self) -> None:
        if self._running is not None or self._expected is not None or not self._line:
            return
        message, lost = self._line.popleft()
        self.consumer.release_prefetch()
        self._expected = message.headers.get("id")
        logger.warning(
            "%s[%s] has lost %d deliveries with the processes that had it. It runs once more, beside no other suspect.",
            message.headers.get("task"),
            self._expected,
            lost,
        )
        self.consumer.dead_letters.put_back(message, lost, changes={TRIAL: lost})
        self._timer = self.consumer.timer.call_after(EXPECT_SECONDS, self._give_up, (self._expected,))

    def _give_up(self, task_id: str) -> None:
        if self._expected == task_id:
            self._expected = None
            self._next()
