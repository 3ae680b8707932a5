"""What a channel holds: messages delivered and not settled, against its prefetch count."""

from __future__ import annotations

import logging
import os
from typing import Any

from qbrokers.redis.bases import BaseQoS
from qbrokers.redis.wire import CHANNEL_ERRORS, CONNECTION_ERRORS

logger = logging.getLogger(__name__)


class QoS(BaseQoS):  # type: ignore[misc]
    """kombu's record of delivered messages, kept on the server by the claim instead of by this object."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._delivered: dict[str, Any] = {}
        self._pid = os.getpid()

    def can_consume(self) -> bool:
        return not self.prefetch_count or len(self._delivered) < self.prefetch_count

    def can_consume_max_estimate(self) -> int | None:
        prefetch: int = self.prefetch_count
        return max(prefetch - len(self._delivered), 0) if prefetch else None

    @property
    def free(self) -> int | None:
        """Messages that may be added; None is without limit."""
        if not self.prefetch_count:
            # A program may replace `can_consume` of one channel by a test of its own (Celery does, to fetch
            # only for idle processes); it is asked before each message then.
            return None if "can_consume" not in self.__dict__ else int(self.can_consume())
        free = max(int(self.prefetch_count) - len(self._delivered), 0)
        return free if "can_consume" not in self.__dict__ else min(free, int(self.can_consume()))

    @property
    def held(self) -> dict[str, Any]:
        """Held messages by tag, oldest first."""
        return self._delivered

    def append(self, message: Any, delivery_tag: str) -> None:
        self._delivered[delivery_tag] = message

    def pop(self, delivery_tag: str) -> Any:
        """Forget a message; None when it is not held here."""
        return self._delivered.pop(delivery_tag, None)

    def ack(self, delivery_tag: str) -> None:
        self.channel.basic_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.basic_reject(delivery_tag, requeue=requeue)

    def restore_unacked(self) -> list[Any]:
        self.channel.basic_recover(requeue=True)
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Hand back what is held, when the channel is closed or the interpreter exits.

        A forked child holds nothing: its copy is the parent's. At the exit of the interpreter the server may be
        gone already; what is held comes back when the lease ends.
        """
        self._on_collect.cancel()
        if (
            self._delivered
            and self._pid == os.getpid()
            and self.restore_at_shutdown
            and self.channel.do_restore
        ):
            try:
                self.restore_unacked()
            except (*CONNECTION_ERRORS, *CHANNEL_ERRORS) as exc:
                logger.warning(
                    "held messages could not be handed back, they come back when their lease ends: %s", exc
                )
                self.channel.session.lost = True

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Done by the keeper."""
