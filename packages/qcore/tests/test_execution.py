"""Running tasks from messages: states, hooks, order, follow-ups (TSK, BAS, RTY, LNK, 4TCL, 4SEM, 4RTY, 4ART)."""

import asyncio

import pytest

from qcore import App, Task, chain, current_task, signals
from qcore.errors import Ignore, MaxRetriesExceededError, Reject
from qcore.testing.inline import InlineWorker

TIMEOUT = 10


@pytest.fixture
def app():
    with App("t", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        app.set_current()
        yield app
        with app.connection_for_write() as connection:
            app.amqp.queues["celery"](connection.default_channel).purge()


@pytest.fixture
def worker(app):
    with InlineWorker(app) as worker:
        yield worker


def test_a_result_comes_back(app, worker):
    add = app.task(name="add")(lambda x, y: x + y)

    assert add.delay(2, 3).get(timeout=TIMEOUT) == 5


def test_a_failure_is_raised_again_with_its_traceback_as_text(app, worker):
    @app.task(name="boom")
    def boom():
        raise KeyError("no")

    result = boom.delay()

    with pytest.raises(KeyError, match="no"):
        result.get(timeout=TIMEOUT)
    assert "in boom" in result.traceback
    assert "qcore/execution" not in result.traceback


def test_an_unknown_task_ends_as_failure_not_registered(app, worker):
    result = app.send_task("no.such.task")

    with pytest.raises(Exception, match=r"no\.such\.task") as caught:
        result.get(timeout=TIMEOUT)
    assert type(caught.value).__name__ == "NotRegistered"


def test_wrong_arguments_end_as_failure_type_error(app, worker):
    loose = app.task(name="loose", typing=False)(lambda x: x)

    with pytest.raises(TypeError, match="missing 1 required"):
        loose.delay().get(timeout=TIMEOUT)


def test_a_result_that_cannot_be_encoded_fails_the_task_and_not_the_worker(app, worker):
    bad = app.task(name="bad")(lambda: object())
    good = app.task(name="good")(lambda: 1)

    result = bad.delay()

    result.get(timeout=TIMEOUT, propagate=False)
    assert result.state == "FAILURE"
    assert good.delay().get(timeout=TIMEOUT) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_exception_still_is_a_failure_of_the_task_alone(app, worker, error):
    @app.task(name="leave")
    def leave():
        raise error

    result = leave.delay()
    result.get(timeout=TIMEOUT, propagate=False)

    assert result.state == "FAILURE"


def test_the_request_tells_of_the_call(app, worker):
    @app.task(name="tell", bind=True)
    def tell(self):
        request = self.request
        return [request.id, request.task, request.retries, request.called_directly, request.hostname]

    result = tell.delay()

    assert result.get(timeout=TIMEOUT) == [result.id, "tell", 0, False, "inline@localhost"]


def test_user_headers_are_attributes_of_the_request(app, worker):
    @app.task(name="tenant", bind=True)
    def tenant(self):
        return [self.request.tenant, self.request.headers]

    assert tenant.apply_async(headers={"tenant": 7}).get(timeout=TIMEOUT) == [7, {"tenant": 7}]


def test_a_task_called_in_a_task_has_its_own_request(app, worker):
    @app.task(name="inner", bind=True)
    def inner(self):
        return self.request.called_directly

    @app.task(name="outer", bind=True)
    def outer(self):
        return [inner(), self.request.called_directly, current_task.name]

    assert outer.delay().get(timeout=TIMEOUT) == [True, False, "outer"]


def test_tasks_sent_by_a_task_know_their_parent_and_root(app, worker):
    @app.task(name="child", bind=True)
    def child(self):
        return [self.request.parent_id, self.request.root_id]

    @app.task(name="parent")
    def parent():
        return child.delay().id

    first = parent.delay()
    child_id = first.get(timeout=TIMEOUT)

    assert app.AsyncResult(child_id).get(timeout=TIMEOUT) == [first.id, first.id]
    assert [result.id for result in first.children] == [child_id]


def test_a_coroutine_task_is_awaited(app, worker):
    @app.task(name="sleepy")
    async def sleepy(x):
        await asyncio.sleep(0)
        return x * 2

    assert sleepy.delay(4).get(timeout=TIMEOUT) == 8


def test_calling_a_coroutine_task_gives_its_coroutine(app):
    @app.task(name="direct", bind=True)
    async def direct(self, x):
        return [x, self.request.called_directly]

    assert asyncio.run(direct(1)) == [1, True]


# --- retries ------------------------------------------------------------------------------------


def test_a_retry_runs_again_with_the_same_id(app, worker):
    @app.task(name="flaky", bind=True)
    def flaky(self):
        if self.request.retries < 2:
            raise self.retry(countdown=0, exc=ValueError("not yet"))
        return [self.request.retries, self.request.id]

    result = flaky.delay()

    assert result.get(timeout=TIMEOUT) == [2, result.id]


def test_max_retries_three_is_four_executions(app, worker):
    runs = []

    @app.task(name="never", bind=True, max_retries=3)
    def never(self):
        runs.append(self.request.retries)
        raise self.retry(countdown=0)

    with pytest.raises(MaxRetriesExceededError, match=r"Can't retry never\["):
        never.delay().get(timeout=TIMEOUT)
    assert runs == [0, 1, 2, 3]


def test_beyond_the_limit_the_given_exception_is_raised(app, worker):
    @app.task(name="never2", bind=True, max_retries=0)
    def never(self):
        raise self.retry(countdown=0, exc=OSError("the disk"))

    with pytest.raises(OSError, match="the disk"):
        never.delay().get(timeout=TIMEOUT)


def test_autoretry_retries_the_listed_exceptions_only(app, worker):
    runs = []

    @app.task(name="auto", autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,),
              retry_kwargs={"countdown": 0, "max_retries": 2})  # fmt: skip
    def auto(error):
        runs.append(error)
        raise {"os": OSError, "file": FileNotFoundError, "value": ValueError}[error]("x")

    for error in ("os", "file", "value"):
        auto.delay(error).get(timeout=TIMEOUT, propagate=False)

    assert runs == ["os"] * 3 + ["file", "value"]


def test_backoff_is_used_by_a_plain_retry_too(app):
    @app.task(name="backed", bind=True, retry_backoff=2, retry_jitter=False)
    def backed(self): ...

    assert [backed._retry_delay(n) for n in range(3)] == [2, 4, 8]


def test_retry_called_directly_raises_the_exception(app):
    @app.task(name="direct_retry", bind=True)
    def task(self):
        raise self.retry(exc=ValueError("direct"))

    with pytest.raises(ValueError, match="direct"):
        task()


def test_autoretry_called_directly_raises_the_exception_itself(app):
    @app.task(name="direct_auto", autoretry_for=(OSError,))
    def task():
        raise OSError("direct")

    with pytest.raises(OSError, match="direct") as caught:
        task()
    assert caught.value.__cause__ is None


# --- predicates -----------------------------------------------------------------------------------


def test_ignore_stores_no_state(app, worker):
    @app.task(name="ignoring", bind=True)
    def ignoring(self):
        self.update_state(state="SUCCESS", meta="by hand")
        raise Ignore

    assert ignoring.delay().get(timeout=TIMEOUT) == "by hand"
    assert worker.outcomes[-1].kind == "ignored"


def test_reject_without_requeue_is_a_final_failure(app, worker):
    @app.task(name="rejecting")
    def rejecting():
        raise Reject("broken for good")

    result = rejecting.delay()
    result.get(timeout=TIMEOUT, propagate=False)

    assert result.state == "FAILURE"
    assert (worker.outcomes[-1].kind, worker.outcomes[-1].requeue) == ("rejected", False)


def test_a_custom_state_is_seen_while_the_task_runs(app, worker):
    @app.task(name="progress", bind=True)
    def progress(self):
        self.update_state(state="PROGRESS", meta={"done": 50})
        return app.AsyncResult(self.request.id).info

    assert progress.delay().get(timeout=TIMEOUT) == {"done": 50}


# --- links and chains ---------------------------------------------------------------------------


def test_callbacks_get_the_result_as_first_argument(app, worker):
    add = app.task(name="add2")(lambda x, y: x + y)

    result = add.apply_async((2, 2), link=add.s(16))
    result.get(timeout=TIMEOUT)

    assert result.children[0].get(timeout=TIMEOUT) == 20


def test_a_chain_passes_results_on(app, worker):
    add = app.task(name="add3")(lambda x, y: x + y)

    result = chain(add.s(1, 1), add.s(10), add.s(100))()

    assert result.get(timeout=TIMEOUT) == 112
    assert result.parent.get(timeout=TIMEOUT) == 12


def test_a_failure_ends_the_whole_chain(app, worker):
    @app.task(name="boom4")
    def boom():
        raise ValueError("first")

    add = app.task(name="add4")(lambda x, y: x + y)
    result = chain(boom.si(), add.s(1), add.s(2))()

    with pytest.raises(ValueError, match="first"):
        result.get(timeout=TIMEOUT)
    assert result.state == "FAILURE"


def test_an_errback_of_three_arguments_is_called_in_place(app, worker):
    calls = []

    @app.task(name="log_error")
    def log_error(request, exc, traceback):
        calls.append((request.id, repr(exc), "boom5" in traceback))

    @app.task(name="boom5")
    def boom5():
        raise ValueError("x")

    result = boom5.apply_async(link_error=log_error.s())
    result.get(timeout=TIMEOUT, propagate=False)
    app.task(name="sync5")(lambda: 1).delay().get(timeout=TIMEOUT)

    assert calls == [(result.id, "ValueError('x')", True)]


def test_an_errback_of_one_argument_is_sent_with_the_failed_id(app, worker):
    seen = []

    @app.task(name="one_argument")
    def one(uuid):
        seen.append(uuid)
        return 1

    @app.task(name="boom6")
    def boom6():
        raise ValueError("x")

    result = boom6.apply_async(link_error=one.s())
    result.get(timeout=TIMEOUT, propagate=False)
    app.task(name="sync6")(lambda: 1).delay().get(timeout=TIMEOUT)
    app.task(name="sync6b")(lambda: 1).delay().get(timeout=TIMEOUT)

    assert seen == [result.id]


def test_an_errback_that_raises_does_not_keep_the_others_from_running(app, worker):
    calls = []

    @app.task(name="bad_errback")
    def bad(request, exc, traceback):
        raise RuntimeError("errback")

    @app.task(name="good_errback")
    def good(request, exc, traceback):
        calls.append(1)

    @app.task(name="boom7")
    def boom7():
        raise ValueError("x")

    boom7.apply_async(link_error=[bad.s(), good.s()]).get(timeout=TIMEOUT, propagate=False)
    app.task(name="sync7")(lambda: 1).delay().get(timeout=TIMEOUT)

    assert calls == [1]


def test_replace_takes_over_the_id(app, worker):
    add = app.task(name="add8")(lambda x, y: x + y)

    @app.task(name="replaced", bind=True)
    def replaced(self, x):
        raise self.replace(add.s(x, 10))

    assert replaced.delay(5).get(timeout=TIMEOUT) == 15


# --- hooks and signals ---------------------------------------------------------------------------


class Hooked(Task):
    """Records the order of everything that happens."""

    log: list[str] = []

    def before_start(self, task_id, args, kwargs):
        self.log.append("before_start")

    def on_success(self, retval, task_id, args, kwargs):
        self.log.append(f"on_success {self.app.AsyncResult(task_id).state}")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        self.log.append(f"on_failure {exc!r} {einfo.type.__name__}")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.log.append(f"on_retry {exc!r}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        self.log.append(f"after_return {status}")


@pytest.fixture
def log():
    Hooked.log = []
    names = ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry")
    receivers = {}
    for name in names:

        def receive(name=name, **kwargs):
            Hooked.log.append(name)

        receivers[name] = receive
        getattr(signals, name).connect(receive)
    yield Hooked
    for name, receive in receivers.items():
        getattr(signals, name).disconnect(receive)


def test_the_order_on_success(app, worker, log):
    fine = app.task(name="fine", base=Hooked)(lambda: log.log.append("body"))
    fine.delay().get(timeout=TIMEOUT)
    app.task(name="sync8")(lambda: 1).delay().get(timeout=TIMEOUT)

    assert log.log[:7] == [
        "task_prerun", "before_start", "body", "on_success SUCCESS", "task_success", "after_return SUCCESS",
        "task_postrun",
    ]  # fmt: skip


def test_the_order_on_failure(app, worker, log):
    @app.task(name="failing9", base=Hooked)
    def failing():
        raise ValueError("x")

    failing.delay().get(timeout=TIMEOUT, propagate=False)
    app.task(name="sync9")(lambda: 1).delay().get(timeout=TIMEOUT)

    assert log.log[:6] == [
        "task_prerun", "before_start", "on_failure ValueError('x') ValueError", "task_failure",
        "after_return FAILURE", "task_postrun",
    ]  # fmt: skip


def test_after_return_is_skipped_for_a_retry(app, worker, log):
    @app.task(name="retrying10", base=Hooked, bind=True)
    def retrying(self):
        if not self.request.retries:
            raise self.retry(countdown=0, exc=ValueError("again"))

    retrying.delay().get(timeout=TIMEOUT)

    assert log.log[:5] == [
        "task_prerun", "before_start", "on_retry ValueError('again')", "task_retry", "task_postrun",
    ]  # fmt: skip


def test_an_exception_in_on_success_leaves_the_success(app, worker):
    class Bad(Task):
        def on_success(self, *args):
            raise RuntimeError("hook")

    task = app.task(name="bad_hook", base=Bad)(lambda: 5)

    assert task.delay().get(timeout=TIMEOUT) == 5


def test_an_exception_in_on_failure_is_an_internal_error_of_a_failed_task(app, worker):
    class Bad(Task):
        def on_failure(self, *args):
            raise RuntimeError("hook")

    @app.task(name="bad_hook2", base=Bad)
    def failing():
        raise ValueError("x")

    result = failing.delay()
    result.get(timeout=TIMEOUT, propagate=False)

    assert result.state == "FAILURE"


def test_a_base_class_wraps_the_call(app, worker):
    class Doubling(Task):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs) * 2

    task = app.task(name="doubling", base=Doubling)(lambda x: x)

    assert task.delay(4).get(timeout=TIMEOUT) == 8
    assert task(4) == 8


def test_an_ignored_result_is_not_stored(app, worker):
    task = app.task(name="ignored", ignore_result=True)(lambda: 5)
    result = task.delay()
    app.task(name="sync11")(lambda: 1).delay().get(timeout=TIMEOUT)

    assert app.AsyncResult(result.id).state == "PENDING"


# --- eager ------------------------------------------------------------------------------------------


def test_apply_runs_here_with_an_eager_request(app):
    @app.task(name="eager", bind=True)
    def eager(self):
        return [self.request.is_eager, self.request.called_directly]

    assert eager.apply().get() == [True, False]


def test_apply_retries_on_the_spot(app):
    @app.task(name="eager_retry", bind=True)
    def eager(self):
        if self.request.retries < 3:
            raise self.retry()
        return self.request.retries

    assert eager.apply().get() == 3


def test_apply_with_throw_raises(app):
    @app.task(name="eager_boom")
    def boom():
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        boom.apply(throw=True)
    assert boom.apply().state == "FAILURE"


def test_always_eager_takes_arguments_through_the_serializer(app):
    app.conf.task_always_eager = True
    kinds = app.task(name="kinds")(lambda x: type(x).__name__)

    assert kinds.delay((1, 2)).get() == "list"


def test_eager_callbacks_run_eagerly(app):
    seen = []
    note = app.task(name="note")(seen.append)
    app.task(name="source")(lambda: 7).apply(link=note.s())

    assert seen == [7]


def test_an_eager_coroutine_task_runs_inside_a_running_loop(app):
    @app.task(name="eager_async")
    async def work():
        await asyncio.sleep(0)
        return 3

    async def main():
        return work.apply().get()

    assert asyncio.run(main()) == 3


def test_a_compressed_call_runs(app, worker):
    echo = app.task(name="echo_compressed")(lambda x: x)

    assert echo.apply_async(("text " * 500,), compression="gzip").get(timeout=TIMEOUT) == "text " * 500
