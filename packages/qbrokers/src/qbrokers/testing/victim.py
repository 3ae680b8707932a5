"""A consumer that takes messages and dies with them.

Run as `python -m qbrokers.testing.victim URL CLASS OPTIONS QUEUE COUNT`.
"""

from __future__ import annotations

import json
import sys
import time

from .harness import Target, drain_until
from .untyped import kombu


def main(url: str, transport: str, options: str, queue: str, count: str) -> None:
    """Hold `count` messages of `queue` until this process is killed."""
    connection = Target(url, transport, json.loads(options)).connect()
    channel = connection.channel()
    held: list[object] = []
    with kombu.Consumer(channel, [kombu.Queue(queue, no_declare=True)], on_message=held.append):
        drain_until(connection, lambda: len(held) >= int(count))
        sys.stdout.write("holding\n")
        sys.stdout.flush()
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
