"""The app: names, registry, laziness, extensions (APP, LAZ, NAM)."""

import pickle

import pytest

from qcore import App, Task, current_app, shared_task
from qcore.app import app_or_default
from qcore.errors import ImproperlyConfigured, NotRegistered


@pytest.fixture
def app():
    with App("proj", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app


def test_the_repr_tells_class_name_and_address(app):
    assert repr(app).startswith("<App proj:0x")


def test_a_task_is_named_after_module_and_function(app):
    @app.task
    def add(x, y): ...

    assert add.name == f"{__name__}.add"
    assert repr(add) == f"<@task: {add.name}>"


def test_main_names_the_tasks_of_a_program(app):
    def add(): ...

    add.__module__ = "__main__"

    assert app.task(add).name == "proj.add"


def test_an_explicit_name_wins(app):
    assert app.task(name="sum-of-two-numbers")(lambda x: x).name == "sum-of-two-numbers"


def test_the_naming_hook_is_used_for_every_automatic_name():
    class MyApp(App):
        def gen_task_name(self, name, module):
            return f"short.{name}"

    with MyApp("x", set_as_current=False) as app:

        @app.task
        def add(): ...

        assert add.name == "short.add"


def test_an_unknown_task_raises_not_registered_with_its_name(app):
    with pytest.raises(NotRegistered, match="nosuch"):
        app.tasks["nosuch"]


def test_tasks_can_be_declared_before_the_settings_are(app):
    @app.task
    def late(): ...

    app.conf.task_acks_late = True

    assert late.acks_late is True


def test_an_option_of_the_task_wins_over_the_setting(app):
    app.conf.task_ignore_result = True

    assert app.task(ignore_result=False)(lambda: 1).ignore_result is False


def test_reading_the_registry_finishes_set_up(app):
    assert app.finalized is False
    assert "celery.map" in app.tasks
    assert app.finalized is True


def test_without_autofinalize_use_before_finalize_is_an_error():
    with (
        App("x", autofinalize=False, set_as_current=False) as app,
        pytest.raises(RuntimeError, match=r"app\.finalize"),
    ):
        app.tasks  # noqa: B018


def test_a_task_registered_after_finalization_is_bound_at_once(app):
    app.finalize()

    @app.task
    def late(): ...

    assert app.tasks[late.name] is late


def test_tasks_are_shared_with_other_apps_unless_they_say_no(app):
    @app.task(name="shared.one")
    def one(): ...

    @app.task(name="private.two", shared=False)
    def two(): ...

    with App("other", set_as_current=False) as other:
        assert "shared.one" in other.tasks
        assert "private.two" not in other.tasks
        assert other.tasks["shared.one"].app is other


def test_a_shared_task_belongs_to_every_app_and_stands_for_the_current_ones(app):
    @shared_task(name="library.work")
    def work(x):
        return x * 2

    app.set_current()

    assert app.tasks["library.work"].app is app
    assert work.app is app
    assert work(4) == 8


def test_current_app_stands_for_the_app_of_this_thread(app):
    app.set_current()

    assert current_app.main == "proj"
    assert app_or_default() is app


def test_with_tracing_a_broken_app_chain_is_an_error(app, monkeypatch):
    monkeypatch.setenv("Q_TRACE_APP", "1")
    with pytest.raises(RuntimeError, match="app chain"):
        app_or_default()
    assert app_or_default(app) is app


def test_a_misspelt_setting_is_an_error_with_a_suggestion():
    with pytest.raises(ImproperlyConfigured, match="task_acks_late"):
        App("x", task_ack_late=True, set_as_current=False)


def test_task_annotations_change_attributes_once_the_task_is_used(app):
    app.conf.task_annotations = {f"{__name__}.slow": {"rate_limit": "10/s"}, "*": {"max_retries": 7}}

    @app.task
    def slow(): ...

    app.finalize()

    assert (slow.rate_limit, slow.max_retries) == ("10/s", 7)


def test_a_task_class_is_registered_by_instance(app):
    class Double(Task):
        name = "double"

        def run(self, x):
            return x * 2

    task = app.register_task(Double())

    assert app.tasks["double"] is task
    assert task(3) == 6


def test_a_task_class_without_run_is_refused(app):
    class Empty(Task):
        name = "empty"

    with pytest.raises(ImproperlyConfigured, match="run"):
        app.register_task(Empty())


def test_a_base_class_can_be_given_per_app_and_per_task():
    class Base(Task):
        queue = "hipri"

    class Other(Task):
        queue = "lopri"

    with App("x", task_cls=Base, set_as_current=False) as app:
        assert app.task(name="a")(lambda: 1).queue == "hipri"
        assert app.task(name="b", base=Other)(lambda: 1).queue == "lopri"


def test_a_missing_extension_names_the_package(app):
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        app.nonsense  # noqa: B018


def test_an_app_pickles_with_its_changes(app):
    app.conf.task_serializer = "json"

    copy = pickle.loads(pickle.dumps(app))

    assert copy.main == "proj"
    assert copy.conf.task_serializer == "json"
    copy.close()


def test_a_task_pickles_to_the_registered_one(app):
    @app.task
    def add(): ...

    app.set_current()

    assert pickle.loads(pickle.dumps(add)) is add


def test_every_thread_has_its_own_reply_address(app):
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.append(app.oid))
    thread.start()
    thread.join()

    assert app.oid == app.oid
    assert found[0] != app.oid


def test_periodic_tasks_become_entries_of_the_beat_schedule(app):
    @app.task
    def tick(x): ...

    key = app.add_periodic_task(10.0, tick.s(1), name="every ten seconds", queue="q")
    app.finalize()

    entry = app.conf.beat_schedule[key]
    assert (entry["task"], entry["args"], entry["schedule"]) == (tick.name, (1,), 10.0)
    assert entry["options"] == {"queue": "q"}


def test_on_after_finalize_is_sent_once(app):
    calls = []
    app.on_after_finalize.connect(lambda **_: calls.append(1))

    app.finalize()
    app.finalize()

    assert calls == [1]


def test_a_saved_group_result_is_restored_through_the_app(app):
    group = app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")])
    group.save()

    assert [result.id for result in app.GroupResult.restore("g")] == ["a", "b"]
    assert app.GroupResult.restore("nothing") is None
