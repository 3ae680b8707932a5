"""`app.conf`: layers, laziness, checking, showing (CNF, SET, C1)."""

import os
import pickle
import sys
import types

import pytest

from qcore.errors import ImproperlyConfigured
from qcore.settings import OPTIONS, Settings


@pytest.fixture
def make():
    def make(keywords=None, **options):
        options.setdefault("environ", {})
        options.setdefault("default_module", None)
        return Settings(keywords, **options)

    return make


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes importable modules into the working directory, and forgets them afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name, text):
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_attributes_and_items_are_the_same(make):
    conf = make()
    conf.timezone = "Europe/London"
    assert conf["timezone"] == conf.timezone == "Europe/London"
    conf["task_acks_late"] = True
    assert conf.task_acks_late is True


def test_update_sets_many(make):
    conf = make()
    conf.update(task_serializer="json", accept_content=["json"], timezone="Europe/Oslo", enable_utc=True)
    conf.update({"result_expires": 5}, [("task_acks_late", True)])
    assert (conf.timezone, conf.result_expires, conf.task_acks_late) == ("Europe/Oslo", 5, True)


def test_a_wrong_update_changes_nothing(make):
    conf = make()
    with pytest.raises(ImproperlyConfigured):
        conf.update(task_acks_late=True, timezone="Mars/Olympus")
    assert conf.task_acks_late is False


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("task_ackslate", "task_acks_late"),
        ("brokr_url", "broker_url"),
        ("result_backends", "result_backend"),
        ("CELERY_ALWAYS_EAGER", "task_always_eager"),
        ("BROKER_URL", "broker_url"),
        ("worker_prefetch_multiplyer", "worker_prefetch_multiplier"),
    ],
)
def test_misspelt_names_are_refused_with_a_suggestion(make, wrong, right):
    conf = make()
    with pytest.raises(ImproperlyConfigured, match=right):
        setattr(conf, wrong, "x")
    with pytest.raises(AttributeError, match=right):
        getattr(conf, wrong)
    with pytest.raises(KeyError, match=right):
        conf[wrong]
    with pytest.raises(ImproperlyConfigured, match=right):
        make({wrong: "x"})


def test_removed_settings_say_why(make):
    with pytest.raises(ImproperlyConfigured, match="policy"):
        make().update(task_queue_ha_policy="all")


def test_hasattr_and_get_work(make):
    conf = make()
    assert hasattr(conf, "broker_url")
    assert not hasattr(conf, "no_such_thing")
    assert conf.get("no_such_thing", 7) == 7
    assert "broker_url" in conf
    assert "no_such_thing" not in conf


def test_nothing_is_read_before_first_use(make):
    calls = []
    conf = make(
        on_configure=lambda: calls.append("configure"), on_after_configure=lambda: calls.append("after")
    )
    conf.config_from_object("no_such_module_anywhere")
    conf.task_acks_late = True
    assert not conf.configured
    assert calls == []


def test_hooks_are_called_once_around_reading(make):
    calls = []
    conf = make(
        on_configure=lambda: calls.append("configure"), on_after_configure=lambda: calls.append("after")
    )
    _ = conf.task_acks_late, conf.broker_url
    assert calls == ["configure", "after"]


def test_the_hook_may_set_values_and_read_them(make):
    conf = make(on_configure=lambda: conf.update(task_acks_late=not conf.task_acks_late))
    assert conf.task_acks_late is True


def test_reading_an_attribute_is_a_plain_lookup(make):
    conf = make()
    _ = conf.task_acks_late
    assert all(name in vars(conf) for name in OPTIONS)


def test_defaults_are_not_shared_between_apps(make):
    one, two = make(), make()
    one.beat_schedule["a"] = {}
    assert two.beat_schedule == {}


# --- layers -------------------------------------------------------------------------------------------


def test_order_of_layers(make):
    conf = make({"task_serializer": "pickle", "result_serializer": "pickle"})
    conf.config_from_object(
        {"task_serializer": "yaml", "result_serializer": "yaml", "event_serializer": "yaml"}
    )
    conf.add_defaults({"event_serializer": "msgpack", "task_default_queue": "further"})
    conf.task_serializer = "assigned"
    assert conf.task_serializer == "assigned"
    assert conf.result_serializer == "pickle"
    assert conf.event_serializer == "yaml"
    assert conf.task_default_queue == "further"
    assert conf.task_protocol == 2


def test_whoever_starts_the_program_says_where_it_connects(make):
    conf = make({"broker_url": "memory://keyword"}, environ={"Q_BROKER_URL": "redis://environment"})
    conf.config_from_object({"broker_url": "amqp://module"})
    conf.broker_url = "memory://assigned"
    assert conf.broker_url == "redis://environment"
    conf.broker_url = "memory://later"
    assert conf.broker_url == "memory://later"
    conf.add_defaults({"task_default_queue": "x"})
    assert conf.broker_url == "memory://later"


def test_every_documented_variable_counts(make):
    conf = make(
        environ={
            "Q_BROKER_URL": "a://",
            "Q_BROKER_READ_URL": "b://",
            "Q_BROKER_WRITE_URL": "c://",
            "Q_RESULT_BACKEND": "d://",
        }
    )
    assert (conf.broker_url, conf.broker_read_url, conf.broker_write_url, conf.result_backend) == (
        "a://",
        "b://",
        "c://",
        "d://",
    )


def test_an_empty_variable_counts_as_unset(make):
    assert make({"broker_url": "memory://"}, environ={"Q_BROKER_URL": ""}).broker_url == "memory://"


def test_a_new_source_drops_earlier_assignments(make):
    conf = make({"task_serializer": "yaml"})
    conf.task_acks_late = True
    conf.config_from_object({"timezone": "Europe/Oslo"})
    assert conf.task_acks_late is False
    assert conf.timezone == "Europe/Oslo"
    assert conf.task_serializer == "yaml"


def test_none_as_keyword_means_not_given(make):
    assert make({"broker_url": None}).value_set_for("broker_url") is False


def test_further_defaults_may_bring_settings_of_their_own(make):
    conf = make()
    conf.add_defaults(lambda: {"myext_colour": "red"})
    assert conf.myext_colour == "red"
    conf.myext_colour = "blue"
    assert conf.myext_colour == "blue"
    with pytest.raises(ImproperlyConfigured, match="myext_colour"):
        conf.myext_color = "green"


def test_settings_of_extensions_may_be_assigned_before_the_configuration_is_read(make):
    conf = make()
    conf.add_defaults(lambda: {"myext_colour": "red"})
    conf.update(myext_colour="blue")
    assert not conf.configured
    assert conf.myext_colour == "blue"


def test_defaults_added_late_are_seen(make):
    conf = make()
    assert conf.task_default_queue == "celery"
    conf.add_defaults({"task_default_queue": "late"})
    assert conf.task_default_queue == "late"


def test_reset_undoes_assignments(make):
    conf = make()
    conf.task_acks_late = True
    del conf.task_acks_late
    assert conf.task_acks_late is False
    conf.update(task_acks_late=True, timezone="Europe/Oslo")
    conf.reset()
    assert conf.changes == {}


def test_setdefault_respects_what_was_set(make):
    conf = make({"task_default_queue": "mine"})
    assert conf.setdefault("task_default_queue", "other") == "mine"
    assert conf.setdefault("task_serializer", "yaml") == "yaml"
    assert conf.task_serializer == "yaml"


def test_version_counts_changes(make):
    conf = make()
    before = conf.version
    conf.task_acks_late = True
    assert conf.version > before


# --- sources ------------------------------------------------------------------------------------------


def test_modules_by_name(make, module):
    module("myconf", "enable_utc = True\ntimezone = 'Europe/London'\nimport os\ndef helper(): pass\n")
    conf = make()
    conf.config_from_object("myconf")
    assert conf.timezone == "Europe/London"


def test_dotted_modules_and_attributes(make, module):
    module("proj.__init__", "")
    module("proj.config", "class Config:\n    timezone = 'Europe/London'\n")
    for name in ("proj.config:Config", "proj.config.Config"):
        conf = make()
        conf.config_from_object(name)
        assert conf.timezone == "Europe/London"


def test_module_and_class_objects(make):
    made = types.ModuleType("made")
    made.task_acks_late = True
    conf = make()
    conf.config_from_object(made)
    assert conf.task_acks_late is True

    class Config:
        task_acks_late = True
        _private = 1

        def method(self):
            pass

    conf = make()
    conf.config_from_object(Config)
    assert conf.task_acks_late is True
    conf = make()
    conf.config_from_object(Config())
    assert conf.task_acks_late is True


def test_a_module_that_is_not_there(make, module):
    conf = make()
    conf.config_from_object("no_such_conf")
    with pytest.raises(ImproperlyConfigured, match="'no_such_conf' not found"):
        _ = conf.task_acks_late
    conf = make()
    conf.config_from_object("no_such_conf", silent=True)
    assert conf.task_acks_late is False
    with pytest.raises(ImproperlyConfigured):
        make().config_from_object("no_such_conf", force=True)


def test_an_attribute_that_is_not_there(make, module):
    module("myconf", "")
    conf = make()
    conf.config_from_object("myconf:Nothing")
    with pytest.raises(ImproperlyConfigured, match="Nothing"):
        conf.load()


@pytest.mark.parametrize(
    ("text", "line", "error"),
    [
        ("task_acks_late = True\n\nx = 1 / 0\n", 3, "ZeroDivisionError"),
        ("task_acks_late = True\nbroker_url = = 3\n", 2, "SyntaxError"),
        ("import no_such_library_for_sure\n", 1, "ModuleNotFoundError"),
    ],
)
def test_a_broken_module_is_named_with_file_and_line(make, module, text, line, error):
    module("qconfig", text)
    conf = make(default_module="qconfig")
    with pytest.raises(ImproperlyConfigured, match=rf"{error}.*qconfig\.py, line {line}\)"):
        _ = conf.task_acks_late


def test_a_silent_source_that_is_broken_is_not_silent(make, module):
    module("myconf", "import no_such_library_for_sure\n")
    conf = make()
    conf.config_from_object("myconf", silent=True)
    with pytest.raises(ImproperlyConfigured, match="no_such_library_for_sure"):
        conf.load()


def test_qconfig_is_read_when_it_is_there(make, module):
    assert make(default_module="qconfig").task_acks_late is False
    module("qconfig", "task_acks_late = True\n")
    assert make(default_module="qconfig").task_acks_late is True


def test_the_environment_names_the_module(make, module):
    module("qconfig", "timezone = 'Europe/Oslo'\n")
    module("other", "timezone = 'Europe/London'\n")
    assert make(default_module="qconfig", environ={"Q_CONFIG_MODULE": "other"}).timezone == "Europe/London"
    with pytest.raises(ImproperlyConfigured, match="absent"):
        _ = make(environ={"Q_CONFIG_MODULE": "absent"}).timezone


def test_config_from_envvar(make, module):
    module("prod", "timezone = 'Europe/London'\n")
    conf = make(environ={"MY_CONFIG": "prod"})
    conf.config_from_envvar("MY_CONFIG")
    assert conf.timezone == "Europe/London"
    with pytest.raises(ImproperlyConfigured, match="OTHER_CONFIG"):
        conf.config_from_envvar("OTHER_CONFIG")
    conf.config_from_envvar("OTHER_CONFIG", silent=True)
    assert conf.timezone == "Europe/London"


def test_misspelt_names_in_modules_are_found(make, module):
    module("myconf", "task_ackslate = True\n")
    conf = make()
    conf.config_from_object("myconf")
    with pytest.raises(
        ImproperlyConfigured, match=r"'task_ackslate' in myconf: did you mean 'task_acks_late'"
    ):
        conf.load()


def test_old_names_in_modules_are_found(make, module):
    module("myconf", "CELERY_RESULT_BACKEND = 'redis://'\n")
    conf = make()
    conf.config_from_object("myconf")
    with pytest.raises(ImproperlyConfigured, match="result_backend"):
        conf.load()


def test_helpers_in_modules_are_left_alone(make, module):
    module(
        "myconf",
        "from datetime import timedelta\nimport os\ndefault_exchange_name = 'x'\nDEBUG = True\nhost = 'h'\n"
        "def broker_for(name): return name\nbroker_url = 'memory://' + host\n_worker_x = 1\n",
    )
    conf = make()
    conf.config_from_object("myconf")
    assert conf.broker_url == "memory://h"


def test_wrong_values_in_sources_name_the_source(make):
    conf = make()
    conf.config_from_object({"task_acks_late": "yes"})
    with pytest.raises(ImproperlyConfigured, match=r"task_acks_late .* \(in dict\)"):
        conf.load()


def test_a_failed_read_can_be_repaired(make, module):
    conf = make()
    conf.config_from_object("later")
    with pytest.raises(ImproperlyConfigured):
        conf.load()
    module("later", "task_acks_late = True\n")
    assert conf.task_acks_late is True


def test_namespace(make):
    conf = make()
    conf.config_from_object(
        {"CELERY_TASK_ALWAYS_EAGER": True, "CELERY_BROKER_URL": "memory://", "DEBUG": True, "TIME_ZONE": "x"},
        namespace="CELERY",
    )
    assert conf.task_always_eager is True
    assert conf.broker_url == "memory://"


def test_namespace_may_end_with_its_separator(make):
    conf = make()
    conf.config_from_object({"q_task_acks_late": True}, namespace="q_")
    assert conf.task_acks_late is True


@pytest.mark.parametrize(
    ("name", "new"),
    [("CELERY_ALWAYS_EAGER", "CELERY_TASK_ALWAYS_EAGER"), ("CELERY_TASK_ALWAYS_EAGR", "task_always_eager")],
)
def test_wrong_names_in_a_namespace_are_refused(make, name, new):
    conf = make()
    conf.config_from_object({name: True}, namespace="CELERY")
    with pytest.raises(ImproperlyConfigured, match=new):
        conf.load()


def test_arguments_of_the_command_line(make):
    conf = make()
    conf.config_from_cmdline(["task.acks_late=1", ".concurrency=3", "broker_pool_limit=none", "pool=threads"])
    assert (conf.task_acks_late, conf.worker_concurrency, conf.broker_pool_limit, conf.worker_pool) == (
        True,
        3,
        None,
        "threads",
    )


@pytest.mark.parametrize("argument", ["task.acks_late", "=3", "task.acks_late=maybe", "task.ackslate=1"])
def test_wrong_arguments_are_refused(make, argument):
    with pytest.raises(ImproperlyConfigured):
        make().config_from_cmdline([argument])


def test_a_configuration_that_asks_for_settings_while_it_is_read(make, module):
    conf = make({"task_default_queue": "mine"})
    holder = types.ModuleType("holder_of_conf")
    holder.conf = conf
    sys.modules["holder_of_conf"] = holder
    module("myconf", "from holder_of_conf import conf\ntask_default_exchange = conf.task_default_queue\n")
    conf.config_from_object("myconf")
    assert conf.task_default_exchange == "mine"


# --- looking up and showing ---------------------------------------------------------------------------


def test_look_up_by_parts_and_endings(make):
    conf = make({"task_acks_late": True})
    assert conf.get_by_parts("task", "acks_late") is True
    assert conf.get_by_parts("", "enable_utc") is True
    assert conf.find_option("acks_late").name == "task_acks_late"
    assert conf.find_option("concurrency", namespace="worker").name == "worker_concurrency"
    assert conf.find_value_for_key("acks_late", "task") is True
    with pytest.raises(KeyError):
        conf.find_option("no_such_option_at_all")


def test_first_value_that_is_set(make):
    conf = make({"broker_url": "memory://"})
    assert conf.first("broker_read_url", "broker_url") == "memory://"
    assert conf.first("broker_read_url", "broker_write_url") is None


def test_value_set_for(make):
    conf = make({"task_acks_late": False})
    conf.task_serializer = "json"
    assert conf.value_set_for("task_acks_late")
    assert conf.value_set_for("task_serializer")
    assert not conf.value_set_for("broker_url")
    with pytest.raises(KeyError):
        conf.value_set_for("nothing")


def test_humanize_shows_what_was_set(make):
    conf = make({"task_acks_late": True})
    conf.beat_schedule["nightly"] = 1
    text = conf.humanize()
    assert "task_acks_late: True" in text
    assert "nightly" in text
    assert "task_protocol" not in text
    assert "task_protocol: 2" in conf.humanize(with_defaults=True)


def test_humanize_reads_the_configuration_if_need_be(make):
    conf = make()
    conf.config_from_object({"task_acks_late": True})
    assert "task_acks_late" in conf.humanize()


def test_secrets_are_masked(make):
    conf = make()
    conf.update(
        redis_password="hunter2",
        s3_secret_access_key="hunter2",
        broker_url="amqp://me:hunter2@host//;amqp://me:hunter2@other//",
        result_backend="db+postgresql://me:hunter2@host/db",
        broker_transport_options={"sentinel_kwargs": {"password": "hunter2"}, "list": ["redis://:hunter2@h"]},
        broker_use_ssl={"keyfile": "hunter2"},
        security_key_password=b"hunter2",
        task_default_queue="shown",
    )
    assert "hunter2" not in conf.humanize()
    assert "hunter2" not in str(conf.table(with_defaults=True))
    assert "shown" in conf.humanize()
    assert "hunter2" in conf.humanize(censored=False)


@pytest.mark.parametrize("word", ["API", "TOKEN", "KEY", "SECRET", "PASS", "SIGNATURE", "DATABASE"])
def test_names_with_certain_words_are_masked(make, word):
    conf = make()
    name = f"myext_{word.lower()}_x"
    conf.add_defaults({name: "hunter2"})
    assert conf.table(with_defaults=True)[name] != "hunter2"


def test_settings_pickle(make, module):
    module("myconf", "timezone = 'Europe/London'\n")
    conf = make({"broker_url": "memory://"})
    conf.config_from_object("myconf")
    conf.add_defaults(lambda: {"myext_x": 1})
    conf.task_acks_late = True
    again = pickle.loads(pickle.dumps(conf))
    assert again.task_acks_late is True
    assert again.timezone == "Europe/London"
    assert again.myext_x == 1
    assert again.value_set_for("broker_url")


def test_the_real_environment_is_the_default(monkeypatch):
    monkeypatch.setitem(os.environ, "Q_BROKER_URL", "memory://env")
    assert Settings(default_module=None).broker_url == "memory://env"
