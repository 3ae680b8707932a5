"""Limits that a server sets, with servers of their own: how long a message may be held, how large it may be, and how
much memory the server may use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from project import Project, wait_until
from servers.rabbitmq import RabbitMQ

from qbrokers.amqp import ConsumerTimeout, PublishTimeout
from qbrokers.testing import Target
from qbrokers.testing.harness import collect, drain_until, publish
from qbrokers.testing.untyped import kombu
from qcore import App
from qcore.errors import OperationalError

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


def test_tasks_above_the_maximum_size_are_errors_and_the_next_ones_are_sent(
    own_server: Callable[[str], str],
) -> None:
    app = App("large", broker=own_server("max_message_size = 5000\n"), set_as_current=False)
    with app.connection_for_write() as connection:
        refused = connection.channel_errors
    for number in range(3):
        with pytest.raises(refused, match="larger than configured max size"):
            app.send_task("large", ("x" * 10_000,))
        app.send_task("small", (number,))
    with pytest.raises(refused, match="larger than configured max size"), app.bulk():
        for size in (10, 10_000, 10):
            app.send_task("large", ("x" * size,))
    with app.connection_for_read() as connection:
        names = [message.headers["task"] for message in messages(connection, app.conf.task_default_queue)]
    assert names.count("small") == 3
    app.close()


def messages(connection: Any, queue: str) -> Iterator[Any]:
    channel = connection.channel()
    while (message := kombu.Queue(queue, no_declare=True)(channel).get(no_ack=True)) is not None:
        yield message


def test_calls_that_returned_under_a_memory_alarm_are_in_the_queue(tmp_path: Path) -> None:
    """The alarm goes on and off while a program sends: a call returns, or fails in time and names the broker."""
    server = RabbitMQ()
    try:
        app = App("alarm", broker=server.start(tmp_path), set_as_current=False)
        app.conf.broker_publish_timeout = 2.0
        returned, errors, slowest = set(), [], 0.0
        over = threading.Event()

        def alarms() -> None:
            for limit in ("0", "0.9", "0", "0.9"):
                server.control("set_vm_memory_high_watermark", limit)
                over.wait(5)  # the length of the alarm, and of the quiet after it
            over.set()

        thread = threading.Thread(target=alarms)
        thread.start()
        number = 0
        while not over.is_set():
            number += 1
            began = time.monotonic()
            try:
                app.send_task("task", task_id=str(number))
                returned.add(str(number))
            except OperationalError as error:
                errors.append(str(error))
            slowest = max(slowest, time.monotonic() - began)
        thread.join()
        with app.connection_for_read() as connection:
            queued = [message.headers["id"] for message in messages(connection, app.conf.task_default_queue)]
        app.close()
        print(
            f"{len(returned)} calls returned, {len(errors)} failed, {len(queued)} messages; {slowest:.1f} s"
        )
        assert returned <= set(queued)
        assert errors
        assert all("cannot send to the broker amqp://" in error for error in errors)
        assert slowest < 4.0
    finally:
        server.stop()
