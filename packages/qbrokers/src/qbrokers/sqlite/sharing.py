"""Consumers, and how the queues of a channel share what it may still take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import frozen

from .messages import Claim, Wish
from .options import Options

if TYPE_CHECKING:
    from .channel import Channel


@frozen(eq=False)
class Subscription:
    """One consumer of a queue."""

    tag: str
    queue: str
    queue_id: int
    no_ack: bool
    callback: Callable[[Any], object]
    channel: Channel


class Delivery(NamedTuple):
    """A claimed message that waits for its consumer to be called."""

    subscription: Subscription
    tag: int
    claim: Claim


def shares(
    subscriptions: Sequence[Subscription], room: int, options: Options, turn: int
) -> dict[Subscription, Wish]:
    """Return how many messages to claim for each consumer of one channel.

    Args:
        subscriptions: Consumers whose queues have something ready, in the order in which they were started.
        room: How many messages the channel's prefetch limit leaves.
        options: The order of the queues, and the size of a batch.
        turn: Counts up, so that each queue is first in its turn.
    """
    batch = options.batch_size
    wishes = {s: Wish(s.queue_id, batch) for s in subscriptions if s.no_ack}
    counted = [s for s in subscriptions if not s.no_ack]
    if counted and room > 0:
        counted = _in_order(counted, options.queue_order_strategy, turn)
        each, rest = divmod(room, len(counted))
        for position, subscription in enumerate(counted):
            limit = min(each + (position < rest), batch)
            if limit:
                wishes[subscription] = Wish(subscription.queue_id, limit)
    return wishes


def _in_order(subscriptions: list[Subscription], strategy: str, turn: int) -> list[Subscription]:
    if strategy == "sorted":
        return [min(subscriptions, key=lambda s: s.queue)]
    if strategy == "priority":
        return subscriptions[:1]
    first = turn % len(subscriptions)
    return subscriptions[first:] + subscriptions[:first]
