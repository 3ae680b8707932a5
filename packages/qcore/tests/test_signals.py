"""Signals (SG, SK, SW)."""

import gc
import logging
import pickle

import pytest

from qcore import signals
from qcore.errors import SoftTimeLimitExceeded
from qcore.signals import Signal


@pytest.fixture
def signal():
    return Signal("happened", "value")


def test_a_receiver_gets_sender_signal_and_arguments(signal):
    got = {}

    @signal.connect
    def receive(**kwargs):
        got.update(kwargs)

    signal.send(sender="me", value=3)
    assert got == {"signal": signal, "sender": "me", "value": 3}


def test_responses_are_returned(signal):
    @signal.connect
    def receive(value=None, **kwargs):
        return value + 1

    assert signal.send(value=3) == [(receive, 4)]


def test_text_senders_filter_by_value(signal):
    got = []

    @signal.connect(sender="proj.add")
    def receive(sender=None, **kwargs):
        got.append(sender)

    signal.send(sender="".join(["proj", ".add"]))
    signal.send(sender="proj.mul")
    assert got == ["proj.add"]


class Sender:
    def __eq__(self, other):
        return True

    __hash__ = object.__hash__


def test_object_senders_filter_by_identity(signal):
    mine, other = Sender(), Sender()
    got = []
    signal.connect(lambda **kwargs: got.append(1), sender=mine)
    signal.send(sender=other)
    assert got == []
    signal.send(sender=mine)
    assert got == [1]


def test_connections_to_a_sender_end_with_it(signal):
    sender = Sender()
    signal.connect(lambda **kwargs: None, sender=sender)
    del sender
    gc.collect()
    assert not signal.has_listeners


def test_errors_of_receivers_are_logged_and_do_not_reach_the_sender(signal, caplog):
    def broken(**kwargs):
        raise ValueError("mine")

    got = []
    signal.connect(broken)
    signal.connect(lambda **kwargs: got.append(1))
    with caplog.at_level(logging.ERROR):
        responses = signal.send()
    assert isinstance(responses[0][1], ValueError)
    assert got == [1]
    assert "happened" in caplog.text


def test_the_soft_time_limit_of_a_task_passes(signal):
    def slow(**kwargs):
        raise SoftTimeLimitExceeded(1)

    signal.connect(slow)
    with pytest.raises(SoftTimeLimitExceeded):
        signal.send()


def test_connecting_twice_is_connecting_once(signal):
    got = []

    def receive(**kwargs):
        got.append(1)

    signal.connect(receive)
    signal.connect(receive)
    signal.send()
    assert got == [1]


def test_dispatch_uid_stands_for_the_receiver(signal):
    got = []
    signal.connect(lambda **kwargs: got.append("first"), dispatch_uid="x")
    signal.connect(lambda **kwargs: got.append("second"), dispatch_uid="x")
    signal.send()
    assert got == ["first"]
    assert signal.disconnect(dispatch_uid="x")
    assert not signal.receivers


def test_disconnecting_something_else_changes_nothing(signal):
    signal.connect(lambda **kwargs: None)
    assert not signal.disconnect(print)
    assert signal.has_listeners


class Handler:
    def __init__(self):
        self.calls = 0

    def on(self, **kwargs):
        self.calls += 1


def test_bound_methods_are_told_apart_by_their_instance(signal):
    one, two = Handler(), Handler()
    signal.connect(one.on)
    signal.connect(two.on)
    signal.connect(one.on)
    signal.send()
    assert (one.calls, two.calls) == (1, 1)
    assert signal.disconnect(one.on)
    signal.send()
    assert (one.calls, two.calls) == (1, 2)


def test_weak_receivers_go_with_their_owner(signal):
    handler = Handler()
    signal.connect(handler.on, weak=True)
    signal.send()
    assert handler.calls == 1
    del handler
    gc.collect()
    assert not signal.receivers


def test_receivers_are_kept_alive_by_default(signal):
    got = []
    signal.connect(lambda **kwargs: got.append(1))
    gc.collect()
    signal.send()
    assert got == [1]


def test_a_receiver_may_disconnect_itself_while_the_signal_is_sent(signal):
    got = []

    def once(**kwargs):
        signal.disconnect(once)
        got.append("once")

    signal.connect(once)
    signal.connect(lambda **kwargs: got.append("other"))
    signal.send()
    signal.send()
    assert got == ["once", "other", "other"]


def no_kwargs(sender):
    pass


async def coroutine(**kwargs):
    pass


@pytest.mark.parametrize("receiver", [no_kwargs, coroutine, 3])
def test_unusable_receivers_are_refused(signal, receiver):
    with pytest.raises(TypeError, match="happened"):
        signal.connect(receiver)


def test_our_signals_pickle_as_themselves():
    assert pickle.loads(pickle.dumps(signals.task_prerun)) is signals.task_prerun
    assert pickle.loads(pickle.dumps(Signal("other", "a"))).arguments == ("a",)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "before_task_publish",
            {"body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"},
        ),
        ("after_task_publish", {"headers", "body", "exchange", "routing_key"}),
        ("task_prerun", {"task_id", "task", "args", "kwargs"}),
        ("task_postrun", {"task_id", "task", "args", "kwargs", "retval", "state"}),
        ("task_retry", {"request", "reason", "einfo"}),
        ("task_failure", {"task_id", "exception", "args", "kwargs", "traceback", "einfo"}),
        ("task_revoked", {"request", "terminated", "signum", "expired"}),
        ("task_unknown", {"name", "id", "message", "exc"}),
        ("task_rejected", {"message", "exc"}),
        ("worker_setup_init", {"instance", "conf", "options"}),
        ("worker_after_setup", {"instance", "conf"}),
        ("worker_process_shutdown", {"pid", "exitcode"}),
        ("worker_shutting_down", {"sig", "how", "exitcode"}),
        ("setup_logging", {"loglevel", "logfile", "format", "colorize"}),
        ("after_setup_logger", {"logger", "loglevel", "logfile", "format", "colorize"}),
        ("user_preload_options", {"app", "options"}),
        ("eventlet_pool_apply", {"target", "args", "kwargs"}),
    ],
)
def test_arguments_are_the_documented_ones(name, arguments):
    assert set(getattr(signals, name).arguments) == arguments
