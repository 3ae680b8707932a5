"""Limits that a server sets: how long a message may be held, and how much memory it uses. With servers of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from project import Project, wait_until

from qbrokers.amqp import ConsumerTimeout, PublishTimeout
from qbrokers.testing import Target
from qbrokers.testing.harness import collect, drain_until, publish
from qbrokers.testing.untyped import kombu

pytestmark = pytest.mark.soak

TRANSPORT = "qbrokers.amqp:Transport"
# The server looks at its channels once a minute.
SHORT_CONSUMER_TIMEOUT = "consumer_timeout = 5000\n"


def test_consumer_timeout_can_be_recovered_from(own_server: Callable[[str], str]) -> None:
    with Target(own_server(SHORT_CONSUMER_TIMEOUT), TRANSPORT).connect() as connection:
        channel = connection.channel()
        queue = kombu.Queue("held", kombu.Exchange("held"), "held")(channel)
        queue.declare()
        publish(channel, queue, 1)
        collect(channel, [queue], 1, ack=False)
        with pytest.raises(ConsumerTimeout) as caught:
            drain_until(connection, lambda: False, seconds=100)
        assert isinstance(caught.value, connection.channel_errors)
        assert isinstance(caught.value, connection.recoverable_channel_errors)
        (again,) = collect(channel, [queue], 1)
        assert again.delivery_info["redelivered"]


def test_worker_outlives_a_consumer_timeout_and_runs_the_task_once(
    own_server: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path, own_server(SHORT_CONSUMER_TIMEOUT))
    try:
        worker = project.start_worker().wait_ready()
        project.task("late_hold").delay(1, 75.0)
        project.wait_for_effects(1)
        wait_until(lambda: "The worker connects again" in worker.log, "the timeout", timeout=100)
        project.task("early").delay(2)
        project.wait_for_effects(2)
        wait_until(lambda: "succeeded" in worker.log.rpartition("late_hold")[2], "its end", timeout=100)
        assert worker.process.poll() is None
        assert sorted(project.effects()) == [1, 2]
    finally:
        project.close()


def test_memory_alarm_ends_publishing_in_an_error_in_time(own_server: Callable[[str], str]) -> None:
    url = own_server("vm_memory_high_watermark.absolute = 1MB\n")
    connection = Target(url, TRANSPORT).connect(publish_timeout=1.5)
    channel: Any = connection.channel()
    channel.queue_declare("alarm", durable=True, auto_delete=False)
    begun = time.monotonic()
    with pytest.raises(PublishTimeout, match="memory or disk alarm"):
        channel.basic_publish(
            channel.prepare_message("1", 0, "text/plain", "utf-8", {}, {"delivery_mode": 2}), "", "alarm"
        )
    connection.release()
    assert time.monotonic() - begun < 5
