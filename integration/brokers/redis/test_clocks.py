"""Old delivery times, as a clock that was set forward makes them."""

from __future__ import annotations

import time

from kombu import Consumer, Queue
from redis_support import Broker, drain

from qbrokers.redis import recovery
from qbrokers.redis.keys import Keys

HOUR = 3600


def age(broker: Broker) -> None:
    """Every message on the books was delivered two hours ago."""
    index = broker.prefix + "unacked_index"
    for tag in broker.client.zrange(index, 0, -1):
        broker.client.zadd(index, {tag: time.time() - 2 * HOUR})


def test_what_has_a_lease_does_not_end_by_the_visibility_timeout(broker: Broker) -> None:
    messages: list[object] = []
    keys = Keys(broker.prefix)
    with broker.connect() as ours, broker.stock() as stock:
        ours.SimpleQueue("ours").put(1)
        stock.SimpleQueue("theirs").put(2)
        with Consumer(ours.channel(), [Queue("ours")], on_message=messages.append):
            drain(ours, 5, lambda: messages)
            stock.SimpleQueue("theirs").get(timeout=5)
            assert broker.held() == 2
            age(broker)
            wire = ours.transport.keeper.new_wire()

            returned = recovery.put_back_stale(wire, keys, "", HOUR)

            wire.close()
            assert returned == 1
            assert broker.client.llen(broker.prefix + "theirs") == 1
            (score,) = [
                score for _, score in broker.client.zrange(keys.unacked_index(""), 0, -1, withscores=True)
            ]
            assert abs(score - time.time()) < 60
