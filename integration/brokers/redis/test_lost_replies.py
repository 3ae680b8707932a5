"""Replies that never arrive: what a claim took and an acknowledgement said must not be lost with them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kombu import Consumer, Producer, Queue
from proxy import Proxy
from redis import exceptions
from redis_support import Broker, drain, until

from qbrokers.redis.claims import claim_one
from qbrokers.redis.keeper import Claim
from qbrokers.redis.wire import CONNECTION_ERRORS

QUEUE = Queue("jobs")


@pytest.fixture
def proxied(broker: Broker) -> Any:
    parameters = broker.client.connection_pool.connection_kwargs
    with Proxy("127.0.0.1", int(parameters["port"])) as proxy:
        yield proxy, f"redis://127.0.0.1:{proxy.port}/{parameters['db']}"


def test_messages_of_a_claim_whose_reply_was_lost_come_back_at_once(broker: Broker, proxied: Any) -> None:
    proxy, url = proxied
    with broker.connect() as connection:
        for body in ("a", "b"):
            Producer(connection.channel()).publish(body, routing_key="jobs")
    got: list[Any] = []
    lost = broker.connect(url, lease_seconds=60)
    # Everything is connected and the other queue is empty, then the claim of this one goes out and its
    # reply does not come.
    consumer = Consumer(lost.channel(), [Queue("other")], on_message=got.append)
    consumer.consume()
    drain(lost, 0.3)
    proxy.hold_replies()
    consumer.channel.basic_consume("jobs", False, got.append, "second")
    for intake in lost.transport.intakes():
        intake.tick()
    until(lambda: broker.held() == 2, 3)
    proxy.cut()
    proxy.thaw()
    with pytest.raises(CONNECTION_ERRORS):
        drain(lost, 3)
    lost.close()
    begun = time.monotonic()
    with broker.connect(url) as connection, Consumer(connection.channel(), [QUEUE], on_message=got.append):
        drain(connection, 10, lambda: len(got) == 2)
        assert time.monotonic() - begun < 5, "not only when the lease is over"
        assert [m.payload for m in got] == ["a", "b"]
        assert [m.headers["x-delivery-count"] for m in got] == [0, 0], "the program never saw them"
        for message in got:
            message.ack()


def test_a_claim_that_arrives_after_it_was_given_up_takes_nothing(broker: Broker) -> None:
    with broker.connect() as connection:
        channel = connection.channel()
        Producer(channel).publish("a", routing_key="jobs")
        session, keeper = channel.session, channel.keeper
        keeper.lost_claim(Claim(session.owner, "", 0, 100))
        until(lambda: broker.client.exists(f"{broker.prefix}_qbrokers.fence.{session.owner}"), 3)
        with pytest.raises(exceptions.ResponseError, match="FENCED"):
            claim_one(session, keeper, channel, "jobs", False)
        assert broker.client.llen(broker.prefix + "jobs") == 1


def test_an_acknowledgement_whose_reply_was_lost_is_sent_again(broker: Broker, proxied: Any) -> None:
    proxy, url = proxied
    got: list[Any] = []
    with broker.connect() as connection:
        Producer(connection.channel()).publish("a", routing_key="jobs")
    lost = broker.connect(url)
    Consumer(lost.channel(), [QUEUE], on_message=got.append).consume()
    drain(lost, 3, lambda: bool(got))
    proxy.freeze()
    got[0].ack()
    for intake in lost.transport.intakes():
        intake.tick()
    proxy.cut()
    proxy.thaw()
    with pytest.raises(CONNECTION_ERRORS):
        drain(lost, 3)
    lost.close()
    until(lambda: broker.held() == 0, 5)
    assert broker.client.llen(broker.prefix + "jobs") == 0
