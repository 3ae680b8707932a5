"""A consumer in a process of its own, made to be killed: notes each delivery in a list, holds it,
acknowledges.

`python victim.py URL PREFIX SECONDS_PER_MESSAGE PREFETCH` consumes the queue `jobs`; the list `PREFIX +
effects` gets the body of each message when its work is done, just before its acknowledgement is flushed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import redis
from kombu import Connection, Consumer, Queue


def main(url: str, prefix: str, hold_seconds: float, prefetch: int) -> None:
    client = redis.Redis.from_url(url)
    options = {"global_keyprefix": prefix, "lease_seconds": 1.5}

    def work(message: Any) -> None:
        client.rpush(prefix + "begun", message.payload)
        time.sleep(hold_seconds)
        # One step, so that a kill falls before or after the effect and never between the two lists.
        client.rpush(prefix + "effects", message.payload)
        message.ack()
        message.channel.flush()

    with Connection(url, transport="qbrokers.redis:Transport", transport_options=options) as connection:
        consumer = Consumer(connection.channel(), [Queue("jobs")], on_message=work)
        consumer.qos(prefetch_count=prefetch)
        consumer.consume()
        while True:
            try:
                connection.drain_events(timeout=1)
            except TimeoutError:
                continue


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
