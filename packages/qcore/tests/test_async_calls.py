"""Calls awaited at the same time share their round trips, and nothing else (D7)."""

import asyncio
import json
import threading
from contextvars import ContextVar

import pytest

from qcore import App, signals
from qcore.errors import EncodeError, OperationalError
from qcore.producer import TaskProducer

place = ContextVar("place", default="nowhere")


@pytest.fixture
def app():
    with App("t", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app
        with app.connection_for_write() as connection:
            for name in ("celery", "other"):
                app.amqp.queues[name](connection.default_channel).purge()


@pytest.fixture
def add(app):
    @app.task(name="t.add")
    def add(x, y):
        return x + y

    return add


@pytest.fixture
def batches(monkeypatch):
    """The sizes of what is published together."""
    sizes = []
    publish_now = TaskProducer.publish_now

    def publish(self, messages, policy=None):
        sizes.append(len(messages))
        publish_now(self, messages, policy)

    monkeypatch.setattr(TaskProducer, "publish_now", publish)
    return sizes


def numbers(app, queue="celery"):
    """The first arguments of the messages in a queue."""
    found = []
    with app.connection_for_read() as connection:
        bound = app.amqp.queues[queue](connection.default_channel)
        while (message := bound.get(no_ack=True)) is not None:
            found.append(json.loads(message.body)[0][0])
    return found


def test_calls_made_at_the_same_time_travel_together_in_order(app, add, batches):
    async def main():
        return await asyncio.gather(*[add.adelay(n, 1) for n in range(200)])

    results = asyncio.run(main())

    assert len({result.id for result in results}) == 200
    assert numbers(app) == list(range(200))
    assert len(batches) < 20


def test_calls_that_come_while_a_batch_is_under_way_are_the_next(app, add, batches):
    under_way, go_on = threading.Event(), threading.Event()

    def hold(sender, body, **_):
        if body[0][0] == 0:
            under_way.set()
            assert go_on.wait(20)

    async def main():
        first = asyncio.ensure_future(add.adelay(0, 1))
        await asyncio.to_thread(under_way.wait, 20)
        others = [asyncio.ensure_future(add.adelay(n, 1)) for n in range(1, 51)]
        await asyncio.sleep(0)
        assert not first.done()
        go_on.set()
        await asyncio.gather(first, *others)

    signals.before_task_publish.connect(hold)
    try:
        asyncio.run(main())
    finally:
        signals.before_task_publish.disconnect(hold)

    assert batches == [1, 50]
    assert numbers(app) == list(range(51))


def test_each_queue_has_its_own_round_trip(app, add, batches):
    async def main():
        await asyncio.gather(
            *[add.aapply_async((n, 1), queue="other" if n % 2 else "celery") for n in range(10)]
        )

    asyncio.run(main())

    assert (numbers(app), numbers(app, "other")) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    assert batches == [5, 5]


def test_a_call_that_cannot_be_encoded_fails_alone(app, add):
    async def main():
        return await asyncio.gather(
            add.adelay(1, 1), add.adelay(object(), 1), add.adelay(2, 1), return_exceptions=True
        )

    _, failed, _ = asyncio.run(main())

    assert isinstance(failed, EncodeError)
    assert numbers(app) == [1, 2]


def test_wrong_arguments_fail_alone(app, add):
    async def main():
        return await asyncio.gather(add.adelay(1), add.adelay(2, 1), return_exceptions=True)

    failed, _ = asyncio.run(main())

    assert isinstance(failed, TypeError)
    assert numbers(app) == [2]


def test_a_call_with_headers_of_its_own_travels_alone(app, add, batches):
    async def main():
        await asyncio.gather(
            *[add.adelay(n, 1) for n in range(5)], add.aapply_async((5, 1), headers={"tenant": "a"})
        )

    asyncio.run(main())

    assert sorted(batches) == [1, 5]


def test_a_broker_that_is_away_is_told_to_each_and_does_not_stop_the_loop():
    policy = {"max_retries": 1, "interval_start": 0.2}
    with App(
        "t", broker="amqp://127.0.0.1:1//", set_as_current=False, task_publish_retry_policy=policy
    ) as app:
        add = app.task(lambda x, y: x + y, name="t.add")
        turns = 0

        async def tick():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        async def main():
            ticking = asyncio.ensure_future(tick())
            failed = await asyncio.gather(*[add.adelay(n, 1) for n in range(10)], return_exceptions=True)
            ticking.cancel()
            return failed

        failed = asyncio.run(main())

    assert all(isinstance(error, OperationalError) for error in failed)
    assert len(failed) == 10
    assert turns > 5


def test_hooks_see_the_context_of_the_caller(app, add):
    seen = {}

    def note(sender, body, **_):
        seen[body[0][0]] = place.get()

    async def call(number):
        place.set(f"request {number}")
        await add.adelay(number, 1)

    async def main():
        await asyncio.gather(*[call(n) for n in range(3)])

    signals.before_task_publish.connect(note)
    try:
        asyncio.run(main())
    finally:
        signals.before_task_publish.disconnect(note)

    assert seen == {n: f"request {n}" for n in range(3)}


def test_calls_in_a_bulk_block_wait_for_its_end(app, add):
    async def main():
        with app.bulk():
            await asyncio.gather(*[add.adelay(n, 1) for n in range(5)])
            assert await asyncio.to_thread(numbers, app) == []

    asyncio.run(main())

    assert numbers(app) == [0, 1, 2, 3, 4]


def test_who_stops_waiting_does_not_disturb_the_others(app, add):
    async def main():
        calls = [asyncio.ensure_future(add.adelay(n, 1)) for n in range(5)]
        await asyncio.sleep(0)
        calls[2].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in done] == [False] * 2 + [True] + [
            False
        ] * 2

    asyncio.run(main())

    assert {0, 1, 3, 4} <= set(numbers(app))


def test_each_event_loop_has_its_own(app, add):
    def loop(start):
        async def main():
            await asyncio.gather(*[add.adelay(n, 1) for n in range(start, start + 50)])

        asyncio.run(main())

    threads = [threading.Thread(target=loop, args=(start,)) for start in (0, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(numbers(app)) == list(range(100))


def test_an_eager_app_runs_the_call(app, add):
    app.conf.task_always_eager = True

    assert asyncio.run(add.adelay(2, 3)).get() == 5
