"""taskiq: `taskiq worker bench.apps.taskiq_app:broker`, on Redis streams (acknowledged) or RabbitMQ."""

from __future__ import annotations

import asyncio
import os

from taskiq_aio_pika import AioPikaBroker
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from bench import ledger

_url, _results, _queue = os.environ["BENCH_BROKER"], os.environ["BENCH_RESULTS"], os.environ["BENCH_QUEUE"]
if _url.startswith("redis"):
    # The group starts at the oldest message; by default it skips what was sent before the worker came.
    broker = RedisStreamBroker(_url, queue_name=_queue, consumer_id="0", xread_count=32)
else:
    broker = AioPikaBroker(_url, queue_name=_queue, exchange_name=_queue)
if _results:
    broker = broker.with_result_backend(RedisAsyncResultBackend(_results, result_ex_time=500))


@broker.task(task_name="bench.noop")
async def noop(number: int) -> int:
    ledger.mark(number)
    return number


_loop = asyncio.new_event_loop()
_started = False


def _run(coroutine):
    global _started
    if not _started:
        _started = True
        _loop.run_until_complete(broker.startup())
    return _loop.run_until_complete(coroutine)


def send(number: int) -> None:
    _run(noop.kiq(number))


send_many = None


def call(number: int) -> object:
    async def there_and_back() -> object:
        task = await noop.kiq(number)
        return (await task.wait_result(check_interval=0.0005, timeout=30)).return_value

    return _run(there_and_back())


def close() -> None:
    if _started:
        _loop.run_until_complete(broker.shutdown())
    _loop.close()
