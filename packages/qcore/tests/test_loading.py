"""Finding apps and importing task modules (FND, B15, C-138, D-006)."""

import sys

import pytest

from qcore import App, signals
from qcore.errors import LoadError
from qcore.loading import Loader, find_app, is_app

APP = "from qcore import App\n{name} = App('{main}', broker='memory://', set_as_current=False)\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes files below the working directory, and forgets the modules and the path afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def app_text(name="app", main="m"):
    return APP.format(name=name, main=main)


def package(project, init="", **modules):
    project(**{"proj__in____init__": init, **{f"proj__in__{name}": text for name, text in modules.items()}})


# --- -A -----------------------------------------------------------------------------------------------


def test_module_and_attribute(project):
    project(tasks=app_text("mine", "exact"))
    assert find_app("tasks:mine").main == "exact"


def test_attributes_of_attributes(project):
    project(tasks=app_text("app", "inner") + "class holder:\n    inner = app\n")
    assert find_app("tasks:holder.inner").main == "inner"


def test_dotted_attribute(project):
    package(project, tasks=app_text("mine", "dotted"))
    assert find_app("proj.tasks.mine").main == "dotted"


def test_order_app_before_q_before_any(project):
    package(project, init=app_text("zzz", "any") + app_text("q", "q") + app_text("app", "app"))
    assert find_app("proj").main == "app"


def test_q_before_any(project):
    package(project, init=app_text("aaa", "any") + app_text("q", "q"))
    assert find_app("proj").main == "q"


def test_any_app_of_the_module(project):
    package(project, init="x = 1\n" + app_text("whatever", "any"), q=app_text("app", "submodule"))
    assert find_app("proj").main == "any"


@pytest.mark.parametrize("name", ["app", "q", "whatever"])
def test_the_submodule_q(project, name):
    package(project, q=app_text(name, "submodule"))
    assert find_app("proj").main == "submodule"


def test_the_submodule_imported_by_its_package(project):
    package(project, init="from . import q\n", q=app_text("app", "submodule"))
    assert find_app("proj").main == "submodule"
    assert find_app("proj.q").main == "submodule"
    assert find_app("proj.q:app").main == "submodule"


def test_the_working_directory_becomes_importable(project, tmp_path):
    project(tasks=app_text())
    find_app("tasks")
    assert str(tmp_path) in sys.path


def test_a_proxy_of_the_current_app_is_not_found(project):
    project(tasks="from qcore import current_app\n")
    with pytest.raises(LoadError, match="no app found"):
        find_app("tasks")


def test_no_such_module(project):
    project(tasks=app_text())
    with pytest.raises(LoadError, match=r"no module 'taks'.*did you mean 'tasks'"):
        find_app("taks")


def test_no_such_attribute(project):
    project(tasks=app_text("mine"))
    with pytest.raises(LoadError, match="no attribute 'yours'; its apps are mine"):
        find_app("tasks:yours")


def test_an_attribute_that_is_no_app(project):
    project(tasks="x = {}\n")
    with pytest.raises(LoadError, match=r"no qcore\.App but a builtins\.dict"):
        find_app("tasks:x")


def test_an_app_of_another_library(project):
    project(tasks="class Celery:\n    def send_task(self): pass\napp = Celery()\n")
    with pytest.raises(LoadError, match="another library"):
        find_app("tasks:app")


def test_nothing_found_tells_where_was_looked(project):
    package(project)
    with pytest.raises(
        LoadError, match=r"looked for proj\.app, proj\.q, any App in proj, the same in proj\.q"
    ):
        find_app("proj")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_library\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("x = = 1\n", "SyntaxError"),
    ],
)
def test_a_broken_module_shows_its_own_traceback(project, text, error):
    project(tasks=text)
    with pytest.raises(LoadError) as caught:
        find_app("tasks:app")
    message = str(caught.value)
    assert error in message
    assert "tasks.py" in message
    assert "loading.py" not in message
    assert type(caught.value.__cause__).__name__ == error


@pytest.mark.parametrize("name", ["proj", "proj.tasks"])
def test_a_broken_package_shows_its_own_traceback(project, name):
    package(project, init="import no_such_library\n", tasks=app_text())
    with pytest.raises(LoadError, match="no_such_library"):
        find_app(name)


@pytest.mark.parametrize("name", ["tasks.py", "./tasks.py", "proj/tasks.py", "tasks.py:app"])
def test_paths_are_corrected(project, name):
    project(tasks=app_text())
    with pytest.raises(LoadError, match="name of the module"):
        find_app(name)


@pytest.mark.parametrize("name", ["", ":app", "tasks:"])
def test_names_of_nothing(project, name):
    with pytest.raises(LoadError, match="names no app"):
        find_app(name)


def test_what_is_an_app():
    class Mine(App):
        pass

    assert is_app(Mine("x", set_as_current=False))
    assert not is_app(Mine)
    assert not is_app(None)


# --- task modules ---------------------------------------------------------------------------------------


@pytest.fixture
def app():
    app = App("loading", broker="memory://", set_as_current=False)
    yield app
    app.close()


def test_imports_come_before_include_and_each_once(project, app):
    for name in ("one", "two", "three"):
        project(**{name: "import sys\nsys.order_here = [*getattr(sys, 'order_here', []), __name__]\n"})
    sys.order_here = []
    app.conf.update(imports=["two", "one"], include=["three", "two"])
    app.loader.import_default_modules()
    app.loader.import_default_modules()
    order = sys.order_here
    del sys.order_here
    assert order == ["two", "one", "three"]
    assert app.loader.task_modules == {"one", "two", "three"}


def test_the_signal_is_sent_first(app):
    seen = []

    def receive(sender=None, **kwargs):
        seen.append(sender)

    signals.import_modules.connect(receive)
    try:
        app.loader.import_default_modules()
    finally:
        signals.import_modules.disconnect(receive)
    assert seen == [app]


def test_a_receiver_that_fails_stops_the_start(app):
    def fail(**kwargs):
        raise ImportError("mine")

    signals.import_modules.connect(fail)
    try:
        with pytest.raises(ImportError, match="mine"):
            app.loader.import_default_modules()
    finally:
        signals.import_modules.disconnect(fail)


def test_a_missing_task_module_is_named(project, app):
    project(tasks="")
    app.conf.include = ["taks"]
    with pytest.raises(LoadError, match=r"task module 'taks'.*did you mean 'tasks'.*include"):
        app.loader.import_default_modules()


def test_a_broken_task_module_shows_its_traceback(project, app):
    project(tasks="def broken(:\n")
    app.conf.include = ["tasks"]
    with pytest.raises(LoadError, match="SyntaxError") as caught:
        app.loader.import_default_modules()
    assert isinstance(caught.value, ImportError)


def test_discovery_waits_for_the_import_of_modules(project, app):
    package(project, tasks="")
    app.autodiscover_tasks(["proj"])
    assert "proj.tasks" not in sys.modules
    app.loader.import_default_modules()
    assert "proj.tasks" in sys.modules


def test_discovery_now(project, app):
    package(project, jobs="")
    app.autodiscover_tasks(lambda: ["proj"], related_name="jobs", force=True)
    assert "proj.jobs" in sys.modules


def test_packages_without_the_module_are_skipped(project, app):
    package(project)
    project(single="")
    app.autodiscover_tasks(["proj", "single"], force=True)
    assert app.loader.task_modules == {"proj", "single"}


def test_discovery_of_packages_alone(project, app):
    package(project, tasks="")
    app.autodiscover_tasks(["proj"], related_name=None, force=True)
    assert "proj" in sys.modules
    assert "proj.tasks" not in sys.modules


def test_a_broken_discovered_module_is_not_skipped(project, app):
    package(project, tasks="import no_such_library\n")
    with pytest.raises(LoadError, match="no_such_library"):
        app.autodiscover_tasks(["proj"], force=True)


def test_discovery_without_django_finds_nothing(app, monkeypatch):
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    app.autodiscover_tasks(force=True)
    assert app.loader.task_modules == set()


def test_hooks_of_a_worker():
    calls = []

    class Mine(Loader):
        def on_worker_init(self):
            calls.append("init")

        def on_worker_process_init(self):
            calls.append("process")

        def on_worker_shutdown(self):
            calls.append("shutdown")

    app = App("hooks", broker="memory://", set_as_current=False, loader=Mine)
    app.loader.init_worker()
    app.loader.init_worker()
    app.loader.init_worker_process()
    app.loader.shutdown_worker()
    app.close()
    assert calls == ["init", "process", "shutdown"]
