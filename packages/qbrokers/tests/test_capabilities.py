"""What is known of the brokers' abilities."""

import kombu
import pytest
from kombu.transport import memory

from qbrokers.capabilities import DECLARED, NO, YES, Redelivery, capabilities

REDIS = "qbrokers.redis:Transport"
AMQP = "qbrokers.amqp:Transport"
SQLITE = "qbrokers.sqlite:Transport"


def of(transport, **options):
    return capabilities(kombu.Connection(transport=transport, transport_options=options))


@pytest.mark.parametrize(
    ("transport", "types", "priorities", "delays"),
    [
        (REDIS, {"direct", "topic", "fanout"}, YES, True),
        (SQLITE, {"direct", "topic", "fanout"}, YES, True),
        (AMQP, {"direct", "topic", "fanout", "headers"}, DECLARED, True),
        ("pyamqp", {"direct", "topic", "fanout", "headers"}, DECLARED, False),
        ("redis", {"direct", "topic", "fanout"}, YES, False),
        ("memory", {"direct", "topic", "fanout"}, NO, False),
        ("filesystem", {"direct", "topic", "fanout"}, NO, False),
        ("pgmq", {"direct", "topic", "fanout"}, NO, False),
        ("zookeeper", {"direct", "topic"}, YES, False),
        ("consul", {"direct", "topic"}, NO, False),
        ("etcd", {"direct"}, NO, False),
    ],
)
def test_each_transport_is_known(transport, types, priorities, delays):
    can = of(transport)

    assert can.exchange_types == types
    assert can.broadcast is ("fanout" in types)
    assert (can.priorities, can.delays) == (priorities, delays)


def test_exchange_types_of_plugins_are_left_to_rabbitmq():
    assert of(AMQP).has_exchange_type("x-consistent-hash")
    assert not of("memory").has_exchange_type("x-consistent-hash")


@pytest.mark.parametrize(
    ("transport", "options", "redelivery"),
    [
        ("redis", {}, Redelivery(3600, "visibility_timeout")),
        ("redis", {"visibility_timeout": 60}, Redelivery(60, "visibility_timeout")),
        ("pgmq", {}, Redelivery(1800, "visibility_timeout")),
        ("memory", {}, None),
        (REDIS, {}, None),
    ],
)
def test_who_delivers_again_what_is_held_is_known(transport, options, redelivery):
    assert of(transport, **options).redelivery == redelivery


def test_rabbitmq_without_delay_queues_keeps_nothing_until_it_is_due():
    assert not of(AMQP, native_delayed_delivery=False).delays


class Descendant(memory.Transport):
    """A transport made from one that is known."""


class Outspoken(memory.Transport):
    """A transport that says what it can do."""

    implements = memory.Transport.implements.extend(priorities=YES, delays=True)


def test_a_transport_made_from_a_known_one_can_do_what_that_can():
    assert of(Descendant).priorities == NO


def test_what_a_transport_says_itself_counts():
    assert (of(Outspoken).priorities, of(Outspoken).delays) == (YES, True)


def test_a_transport_of_others_counts_as_able():
    class Stranger(kombu.transport.base.Transport):
        pass

    can = of(Stranger)

    assert can.broadcast
    assert can.priorities == YES
    assert can.has_exchange_type("headers")


@pytest.fixture
def sqs():
    pytest.importorskip("botocore", reason="package missing: botocore")
    return "SQS"


def test_sqs_has_direct_exchanges_alone(sqs):
    can = of(sqs)

    assert can.exchange_types == {"direct"}
    assert not can.broadcast
    assert (can.priorities, can.delays) == (NO, False)


def test_sqs_broadcasts_tasks_when_told_so_but_no_remote_control(sqs):
    can = of(sqs, supports_fanout=True)

    assert can.has_exchange_type("fanout")
    assert not can.broadcast


@pytest.mark.parametrize(
    ("options", "redelivery"),
    [
        ({}, Redelivery(1800, "visibility_timeout")),
        ({"visibility_timeout": 7200}, Redelivery(7200, "visibility_timeout")),
        ({"predefined_queues": {"a": {"url": "https://sqs/a"}}}, None),  # AWS knows, we do not
    ],
)
def test_sqs_delivers_again_what_is_held(sqs, options, redelivery):
    assert of(sqs, **options).redelivery == redelivery
