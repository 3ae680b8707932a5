"""Calls that travel together to RabbitMQ: the one that the broker refuses fails, its company does not."""

from __future__ import annotations

import asyncio
from typing import Any

from kombu import Queue

from qcore import App


def test_only_the_refused_calls_fail(amqp_url: str, test_prefix: str) -> None:
    name = f"{test_prefix}-short"
    queue = Queue(name, queue_arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    with App("t", broker=amqp_url, set_as_current=False, task_queues=[queue], task_default_queue=name) as app:
        add = app.task(lambda x, y: x + y, name="t.add")

        with app.connection_for_write() as connection:
            bound = queue(connection.default_channel)
            bound.declare()
            try:
                done = asyncio.run(gathered(add))
                arrived = set()
                while (message := bound.get(no_ack=True)) is not None:
                    arrived.add(message.headers["id"])
            finally:
                bound.delete()
    succeeded = {each.id for each in done if not isinstance(each, BaseException)}
    assert succeeded == arrived
    assert len(arrived) == 3


async def gathered(add: Any) -> list[Any]:
    calls = [add.aapply_async((n, 1), task_id=f"call-{n}") for n in range(12)]
    return await asyncio.gather(*calls, return_exceptions=True)
