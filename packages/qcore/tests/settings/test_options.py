"""The option table: every setting, its default, what values it takes (C, 4SET, A0)."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcore.errors import ImproperlyConfigured
from qcore.settings import OLD_NAMES, OPTIONS, REMOVED, Settings

DEFAULTS = {
    "accept_content": ("json",),
    "enable_utc": True,
    "timezone": None,
    "task_serializer": "json",
    "task_protocol": 2,
    "task_publish_retry": True,
    "task_publish_retry_policy": {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 0.2,
    },
    "task_always_eager": False,
    "task_acks_late": False,
    "task_acks_on_failure_or_timeout": True,
    "task_acks_on_failure": None,
    "task_default_queue": "celery",
    "task_default_exchange": None,
    "task_default_exchange_type": "direct",
    "task_default_delivery_mode": 2,
    "task_create_missing_queues": True,
    "task_create_missing_queue_type": "classic",
    "task_queue_max_priority": None,
    "task_store_eager_result": False,
    "task_repr_maxlevels": 3,
    "broker_url": None,
    "broker_heartbeat": 120,
    "broker_heartbeat_checkrate": 3.0,
    "broker_connection_timeout": 4.0,
    "broker_connection_max_retries": 100,
    "broker_pool_limit": 10,
    "result_expires": timedelta(days=1),
    "result_cache_max": -1,
    "result_chord_join_timeout": 3.0,
    "result_backend_max_retries": float("inf"),
    "redis_socket_timeout": 120.0,
    "event_queue_ttl": 5.0,
    "event_queue_expires": 60.0,
    "event_queue_prefix": "celeryev",
    "control_queue_ttl": 300.0,
    "control_queue_exclusive": True,
    "worker_prefetch_multiplier": 4,
    "worker_lost_wait": 10.0,
    "worker_timer_precision": 1.0,
    "worker_redirect_stdouts_level": "WARNING",
    "worker_enable_remote_control": True,
    "worker_proc_alive_timeout": 4.0,
    "beat_schedule": {},
    "beat_schedule_filename": "celerybeat-schedule",
    "beat_max_loop_interval": 0,
    "security_digest": "sha256",
    "database_engine_options": {"pool_pre_ping": True, "pool_recycle": 3600},
    "azureblockblob_container_name": "celery",
    "cosmosdbsql_max_retry_attempts": 9,
    "worker_prefetch_adaptive": True,
    "broker_max_deliveries": 5,
    "broker_publish_timeout": 5.0,
}


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_defaults_are_the_documented_ones(name, default):
    assert OPTIONS[name].default == default


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_every_default_is_a_value_that_its_option_takes(option):
    assert option.check(option.default) == option.default
    assert option.help


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_every_old_name_leads_to_a_setting(old, new):
    assert new in OPTIONS
    assert old.isupper()


def test_removed_names_are_no_settings():
    assert not REMOVED.keys() & OPTIONS.keys()


GOOD = [
    ("task_acks_late", 1, True),
    ("imports", "proj.tasks", ("proj.tasks",)),
    ("accept_content", {"json"}, {"json"}),
    ("broker_url", ["amqp://a", "amqp://b"], ["amqp://a", "amqp://b"]),
    ("result_expires", 3600, 3600),
    ("result_expires", timedelta(hours=1), timedelta(hours=1)),
    ("result_expires", None, None),
    ("broker_use_ssl", {"ca_certs": "x"}, {"ca_certs": "x"}),
    ("worker_concurrency", "auto", "auto"),
    ("task_default_delivery_mode", "transient", "transient"),
    ("task_default_rate_limit", "10/m", "10/m"),
    ("timezone", "Europe/Oslo", "Europe/Oslo"),
    ("broker_pool_limit", None, None),
    ("worker_prefetch_multiplier", 0, 0),
]


@pytest.mark.parametrize(("name", "value", "kept"), GOOD)
def test_values_that_fit_are_kept(name, value, kept):
    assert OPTIONS[name].check(value) == kept


BAD = [
    ("task_acks_late", "False"),
    ("task_acks_late", 2),
    ("task_acks_late", None),
    ("worker_prefetch_multiplier", "4"),
    ("worker_prefetch_multiplier", True),
    ("worker_prefetch_multiplier", 1.5),
    ("broker_url", 5),
    ("broker_url", [1]),
    ("imports", 3),
    ("beat_schedule", [1]),
    ("task_protocol", 3),
    ("task_default_queue_type", "quorom"),
    ("task_default_rate_limit", "10/d"),
    ("timezone", "Mars/Olympus"),
    ("broker_max_deliveries", -1),
    ("task_serializer", None),
    ("task_time_limit", "300"),
    ("result_backend", 3),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_values_that_do_not_fit_are_refused_by_name(name, value):
    with pytest.raises(ImproperlyConfigured, match=name):
        OPTIONS[name].check(value)


def test_the_refusal_tells_what_is_wanted_and_what_was_given():
    with pytest.raises(ImproperlyConfigured, match="must be a whole number, not str '4'"):
        OPTIONS["worker_prefetch_multiplier"].check("4")


def test_the_refusal_does_not_show_a_secret():
    with pytest.raises(ImproperlyConfigured) as caught:
        OPTIONS["security_key_password"].check(["hunter2"])
    assert "hunter2" not in str(caught.value)


TEXTS = [
    ("task_acks_late", "true", True),
    ("task_acks_late", "0", False),
    ("worker_prefetch_multiplier", "8", 8),
    ("broker_heartbeat", "2.5", 2.5),
    ("imports", "a, b.c", ["a", "b.c"]),
    ("beat_schedule", "{}", {}),
    ("broker_pool_limit", "none", None),
    ("worker_concurrency", "3", 3),
    ("worker_concurrency", "auto", "auto"),
    ("broker_url", "redis://", "redis://"),
]


@pytest.mark.parametrize(("name", "text", "value"), TEXTS)
def test_text_from_outside_becomes_a_value(name, text, value):
    assert OPTIONS[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("task_acks_late", "maybe"),
        ("worker_prefetch_multiplier", "x"),
        ("beat_schedule", "{"),
        ("task_protocol", "7"),
    ],
)
def test_text_that_makes_no_sense_is_refused(name, text):
    with pytest.raises(ImproperlyConfigured, match=name):
        OPTIONS[name].parse(text)


@given(
    st.sampled_from(sorted(OPTIONS)),
    st.one_of(st.none(), st.integers(), st.text(), st.booleans(), st.binary()),
)
def test_a_value_is_either_kept_or_refused_clearly(name, value):
    settings = Settings(default_module=None, environ={})
    refusal = ""
    try:
        settings.update({name: value})
    except ImproperlyConfigured as exc:
        refusal = str(exc)
    assert (name in settings.changes) != (name in refusal)
