"""dramatiq: `dramatiq bench.apps.dramatiq_app`."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.broker import Broker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench import ledger

_url, _results = os.environ["BENCH_BROKER"], os.environ["BENCH_RESULTS"]
_redis = _url.startswith("redis")
broker: Broker = RedisBroker(url=_url) if _redis else RabbitmqBroker(url=_url, confirm_delivery=True)
if _results:
    broker.add_middleware(Results(backend=RedisBackend(url=_results)))
dramatiq.set_broker(broker)


_options = {"store_results": True} if _results else {}


@dramatiq.actor(queue_name=os.environ["BENCH_QUEUE"], **_options)
def noop(number: int) -> int:
    ledger.mark(number)
    return number


def send(number: int) -> None:
    noop.send(number)


send_many = None


def call(number: int) -> object:
    return noop.send(number).get_result(block=True, timeout=30_000)


def close() -> None:
    broker.close()
