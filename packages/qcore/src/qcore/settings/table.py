"""Every setting: name, kind, default and what it does.

Names and defaults are those of the manual and of Celery 5.x; the last group is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from .option import (
    ANY,
    BOOL,
    DICT,
    FACTORY,
    INT,
    LIST,
    MODE,
    NUMBER,
    PATH,
    RATE,
    SECONDS,
    SECRET,
    SSL,
    STORE,
    TEXT,
    URL,
    ZONE,
    Option,
)

_LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
_TASK_LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
_PUBLISH_RETRY = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
_QUEUE_TYPES = ("classic", "quorum", "stream")


def _o(name: str, kind: Any, default: Any = None, help: str = "", **more: Any) -> Option:
    return Option(name, kind, default, help, **more)


_GENERAL = (
    _o("accept_content", LIST, ("json",), "serializer names or MIME types that are decoded"),
    _o("result_accept_content", LIST, None, "the same for results; None: as accept_content"),
    _o("enable_utc", BOOL, True, "times in messages are in UTC"),
    _o(
        "timezone", ZONE, None, "zone of schedules and of local times; None: UTC, or local without enable_utc"
    ),
    _o("imports", LIST, (), "modules that a worker imports at start"),
    _o("include", LIST, (), "more of them, imported after `imports`"),
    _o("override_backends", DICT, {}, "result backend scheme -> class path that replaces the installed one"),
)

_TASK = (
    _o(
        "task_annotations",
        ANY,
        None,
        "attributes of tasks to change: mapping, object with annotate(), or list",
    ),
    _o("task_compression", TEXT, None, "compress task messages: gzip, bzip2, lzma, zstd, brotli"),
    _o("task_protocol", INT, 2, "message protocol to send", choices=(1, 2)),
    _o("task_serializer", TEXT, "json", "serializer of task messages"),
    _o("task_publish_retry", BOOL, True, "try again when sending fails"),
    _o("task_publish_retry_policy", DICT, _PUBLISH_RETRY, "how often and how fast"),
    _o("task_always_eager", BOOL, False, "run calls in place instead of sending them"),
    _o("task_eager_propagates", BOOL, False, "calls run in place raise"),
    _o("task_store_eager_result", BOOL, False, "store results of calls run in place"),
    _o("task_remote_tracebacks", BOOL, False, "raised results carry the worker's stack (needs tblib)"),
    _o("task_ignore_result", BOOL, False, "do not store return values"),
    _o("task_store_errors_even_if_ignored", BOOL, False, "store errors although results are ignored"),
    _o("task_track_started", BOOL, False, "store the state STARTED"),
    _o("task_time_limit", SECONDS, None, "kill a run after this long"),
    _o("task_soft_time_limit", SECONDS, None, "raise SoftTimeLimitExceeded in a run after this long"),
    _o("task_acks_late", BOOL, False, "acknowledge after the run instead of before"),
    _o("task_acks_on_failure_or_timeout", BOOL, True, "acknowledge late tasks that failed or ran too long"),
    _o("task_acks_on_failure", BOOL, None, "acknowledge late tasks that failed; None: as the line above"),
    _o("task_acks_on_timeout", BOOL, None, "acknowledge late tasks that ran too long; None: likewise"),
    _o("task_reject_on_worker_lost", BOOL, None, "requeue a late task whose process died"),
    _o("task_retry_on_worker_lost", BOOL, False, "retry a task whose process died, within its max_retries"),
    _o("task_default_rate_limit", RATE, None, "rate limit of tasks without their own"),
    _o("task_repr_maxlevels", INT, 3, "nesting that argsrepr and kwargsrepr show", minimum=0),
    _o("task_send_sent_event", BOOL, False, "send the event task-sent"),
    _o("task_inherit_parent_priority", BOOL, False, "calls from a task take its priority"),
    _o("task_default_priority", INT, None, "priority of calls without their own", minimum=0),
    _o("task_allow_error_cb_on_chord_header", BOOL, False, "error callbacks of a chord go to its header too"),
)

_ROUTING = (
    _o("task_queues", ANY, None, "queues: list of kombu.Queue, or mapping of name to queue or options"),
    _o("task_queue_max_priority", INT, None, "x-max-priority of queues without their own", minimum=0),
    _o("task_routes", ANY, None, "router or routers: mapping, pairs, function, object, dotted name"),
    _o("task_create_missing_queues", BOOL, True, "declare queues that are named but not defined"),
    _o("task_create_missing_queue_type", TEXT, "classic", "their queue type", choices=_QUEUE_TYPES),
    _o("task_create_missing_queue_exchange_type", TEXT, None, "their exchange type"),
    _o("task_default_queue", TEXT, "celery", "queue of calls that name none"),
    _o("task_default_queue_type", TEXT, "classic", "its type", choices=_QUEUE_TYPES),
    _o("task_default_exchange", TEXT, None, "its exchange; None: as the queue"),
    _o("task_default_exchange_type", TEXT, "direct", "its exchange's type"),
    _o("task_default_routing_key", TEXT, None, "its binding; None: as the queue"),
    _o(
        "task_default_delivery_mode",
        MODE,
        2,
        "2 or 'persistent', 1 or 'transient'",
        choices=(1, 2, "1", "2", "transient", "persistent"),
    ),
    _o("worker_direct", BOOL, False, "each worker has a queue of its own"),
)

_BROKER = (
    _o("broker_url", URL, None, "where messages go; nothing set anywhere: files below .q/"),
    _o("broker_read_url", URL, None, "for consuming; None: as broker_url"),
    _o("broker_write_url", URL, None, "for sending; None: as broker_url"),
    _o("broker_transport", TEXT, None, "scheme of a URL given in parts"),
    _o("broker_host", TEXT, None, "host of a URL given in parts"),
    _o("broker_port", INT, None, "port of a URL given in parts", minimum=1),
    _o("broker_user", TEXT, None, "user of a URL given in parts"),
    _o("broker_password", TEXT, None, "password of a URL given in parts"),
    _o("broker_vhost", TEXT, None, "virtual host of a URL given in parts"),
    _o("broker_transport_options", DICT, {}, "options of the transport"),
    _o("broker_failover_strategy", FACTORY, None, "round-robin, shuffle, or a generator over the URLs"),
    _o("broker_heartbeat", NUMBER, 120, "seconds between AMQP heartbeats; 0 or None: none", nullable=True),
    _o("broker_heartbeat_checkrate", NUMBER, 3.0, "checks per heartbeat"),
    _o("broker_connection_timeout", NUMBER, 4.0, "seconds for establishing a connection", nullable=True),
    _o("broker_connection_retry", BOOL, True, "reconnect after a loss"),
    _o("broker_connection_retry_on_startup", BOOL, None, "the same at start; None: as the line above"),
    _o("broker_connection_max_retries", NUMBER, 100, "tries to connect; None: for ever", nullable=True),
    _o("broker_channel_error_retry", BOOL, False, "reconnect on an invalid response"),
    _o("broker_login_method", TEXT, None, "AMQP login method"),
    _o("broker_pool_limit", INT, 10, "connections kept for sending; 0 or None: one per use", nullable=True),
    _o("broker_pool_acquire_timeout", NUMBER, None, "seconds to wait for one; None: for ever"),
    _o("broker_use_ssl", SSL, False, "TLS to the broker", nullable=True),
    _o("broker_native_delayed_delivery_queue_type", TEXT, "quorum", "queue type of RabbitMQ's delay ladder"),
    _o("event_queue_ttl", NUMBER, 5.0, "seconds that events wait in a monitor's queue", nullable=True),
    _o("event_queue_expires", NUMBER, 60.0, "seconds until a monitor's queue goes away", nullable=True),
    _o("event_queue_prefix", TEXT, "celeryev", "how monitors' queues are called"),
    _o("event_queue_durable", BOOL, False, "monitors' queues survive the broker"),
    _o("event_queue_exclusive", BOOL, True, "monitors' queues belong to their connection"),
    _o("event_exchange", TEXT, "celeryev", "exchange of events"),
    _o("event_serializer", TEXT, "json", "serializer of events"),
    _o("control_exchange", TEXT, "celery", "exchange of remote control, `.pidbox` is added"),
    _o("control_queue_ttl", NUMBER, 300.0, "seconds that commands wait", nullable=True),
    _o("control_queue_expires", NUMBER, 10.0, "seconds until unused command queues go away", nullable=True),
    _o("control_queue_durable", BOOL, False, "command queues survive the broker"),
    _o("control_queue_exclusive", BOOL, True, "command queues belong to their connection"),
)

_RESULT = (
    _o("result_backend", STORE, None, "URL of the result store; a broker and no backend: no results"),
    _o("result_serializer", TEXT, "json", "serializer of results"),
    _o("result_compression", TEXT, None, "compress stored results"),
    _o("result_extended", BOOL, False, "store name, arguments, worker, retries and queue as well"),
    _o(
        "result_expires",
        SECONDS,
        timedelta(days=1),
        "keep results this long; 0 or None: for ever",
        nullable=True,
    ),
    _o("result_chord_expires", SECONDS, None, "keep chord counters this long; None: as results"),
    _o("result_failure_expires", SECONDS, None, "keep failures this long; None: as results"),
    _o(
        "result_cache_max",
        INT,
        -1,
        "results cached by a client; -1: none, 0 or None: no limit",
        nullable=True,
    ),
    _o("result_persistent", BOOL, None, "result messages survive the broker"),
    _o("result_exchange", TEXT, "celeryresults", "exchange of the old amqp store"),
    _o("result_exchange_type", TEXT, "direct", "its type"),
    _o("result_chord_join_timeout", NUMBER, 3.0, "seconds to join the parts of a chord", nullable=True),
    _o("result_chord_retry_interval", NUMBER, 1.0, "seconds between looks at an unfinished chord"),
    _o("result_backend_transport_options", DICT, {}, "options of the result store's transport"),
    _o("result_backend_always_retry", BOOL, False, "try again when the store fails"),
    _o("result_backend_max_retries", NUMBER, float("inf"), "how often", nullable=True),
    _o("result_backend_base_sleep_between_retries_ms", INT, 10, "first pause, milliseconds", minimum=0),
    _o("result_backend_max_sleep_between_retries_ms", INT, 10000, "longest pause, milliseconds", minimum=0),
    _o("result_backend_thread_safe", BOOL, False, "threads share one backend object"),
)

_STORES = (
    _o("database_url", TEXT, None, "URL of the database store when result_backend is `database`"),
    _o(
        "database_engine_options",
        DICT,
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "SQLAlchemy engine options",
        nullable=True,
    ),
    _o("database_engine_callback", FACTORY, None, "called with the new engine"),
    _o("database_short_lived_sessions", BOOL, False, "a session per operation"),
    _o("database_table_names", DICT, {}, "table names for the keys task and group", nullable=True),
    _o("database_table_schemas", DICT, {}, "schemas for the keys task and group", nullable=True),
    _o("database_create_tables_at_setup", BOOL, True, "create tables at start instead of on first use"),
    _o("cache_backend", TEXT, None, "cache to use when result_backend is `cache`"),
    _o("cache_backend_options", DICT, {}, "options of the cache client"),
    _o("redis_host", TEXT, None, "host when the URL has none"),
    _o("redis_port", INT, None, "port when the URL has none"),
    _o("redis_db", MODE, None, "database when the URL has none"),
    _o("redis_username", TEXT, None, "user when the URL has none"),
    _o("redis_password", TEXT, None, "password when the URL has none"),
    _o("redis_max_connections", INT, None, "size of the pool; None: no limit"),
    _o("redis_socket_timeout", NUMBER, 120.0, "seconds for an operation", nullable=True),
    _o("redis_socket_connect_timeout", NUMBER, None, "seconds for connecting"),
    _o("redis_socket_keepalive", BOOL, False, "TCP keepalive"),
    _o("redis_retry_on_timeout", BOOL, False, "try a timed out command again"),
    _o("redis_backend_use_ssl", SSL, None, "TLS options"),
    _o("redis_backend_health_check_interval", NUMBER, None, "seconds between checks of pooled connections"),
    _o("redis_backend_credential_provider", FACTORY, None, "credential provider or its dotted name"),
    _o("redis_client_name", TEXT, None, "client name shown by CLIENT LIST"),
    _o(
        "mongodb_backend_settings",
        DICT,
        None,
        "database, taskmeta_collection, groupmeta_collection, options ...",
    ),
    _o("couchbase_backend_settings", DICT, None, "host, port, bucket, username, password"),
    _o("arangodb_backend_settings", DICT, None, "host, port, database, collection, username, password ..."),
    _o("cassandra_servers", LIST, (), "hosts", nullable=True),
    _o("cassandra_port", INT, 9042, "port", nullable=True),
    _o("cassandra_keyspace", TEXT, None, "keyspace"),
    _o("cassandra_table", TEXT, None, "table"),
    _o("cassandra_read_consistency", TEXT, None, "ONE, TWO, QUORUM, ALL ..."),
    _o("cassandra_write_consistency", TEXT, None, "ONE, TWO, QUORUM, ALL ..."),
    _o("cassandra_entry_ttl", NUMBER, None, "seconds that results live"),
    _o("cassandra_auth_provider", TEXT, None, "class in cassandra.auth"),
    _o("cassandra_auth_kwargs", DICT, {}, "its arguments", nullable=True),
    _o("cassandra_options", DICT, {}, "arguments of the cluster"),
    _o("cassandra_bundle_path", PATH, None, "secure connect bundle of a hosted cluster"),
    _o("cassandra_secure_bundle_path", PATH, None, "the same under its documented name"),
    _o("elasticsearch_retry_on_timeout", BOOL, None, "try again after a time-out"),
    _o("elasticsearch_max_retries", INT, None, "how often"),
    _o("elasticsearch_timeout", NUMBER, None, "seconds for a request"),
    _o("elasticsearch_save_meta_as_text", BOOL, True, "store records as text"),
    _o("s3_access_key_id", TEXT, None, "access key"),
    _o("s3_secret_access_key", TEXT, None, "secret key"),
    _o("s3_bucket", TEXT, None, "bucket"),
    _o("s3_base_path", TEXT, None, "folder in the bucket"),
    _o("s3_endpoint_url", TEXT, None, "other server than Amazon's"),
    _o("s3_region", TEXT, None, "region"),
    _o("dynamodb_endpoint_url", TEXT, None, "other server than Amazon's"),
    _o("azureblockblob_container_name", TEXT, "celery", "container"),
    _o("azureblockblob_base_path", TEXT, "", "folder in the container"),
    _o("azureblockblob_retry_initial_backoff_sec", INT, 2, "first pause, seconds"),
    _o("azureblockblob_retry_increment_base", INT, 2, "growth of the pause"),
    _o("azureblockblob_retry_max_attempts", INT, 3, "tries"),
    _o("azureblockblob_connection_timeout", NUMBER, 20, "seconds for connecting"),
    _o("azureblockblob_read_timeout", NUMBER, 120, "seconds for reading"),
    _o("gcs_bucket", TEXT, None, "bucket"),
    _o("gcs_project", TEXT, None, "project"),
    _o("gcs_base_path", TEXT, "", "folder in the bucket"),
    _o("gcs_ttl", NUMBER, 0, "seconds that results live; 0: for ever"),
    _o("cosmosdbsql_database_name", TEXT, "celerydb", "database"),
    _o("cosmosdbsql_collection_name", TEXT, "celerycol", "collection"),
    _o("cosmosdbsql_consistency_level", TEXT, "Session", "consistency level"),
    _o("cosmosdbsql_max_retry_attempts", INT, 9, "tries"),
    _o("cosmosdbsql_max_retry_wait_time", INT, 30, "seconds to try"),
)

_SECURITY = (
    _o("security_key", PATH, None, "file with the private key that signs messages"),
    _o("security_key_password", SECRET, None, "its password"),
    _o("security_certificate", PATH, None, "file with the certificate of that key"),
    _o("security_cert_store", PATH, None, "glob of the certificates that are trusted"),
    _o("security_digest", TEXT, "sha256", "digest that is signed"),
)

_WORKER = (
    _o("worker_agent", FACTORY, None, "class of a supervising agent"),
    _o("worker_autoscaler", FACTORY, "qworker.autoscale:Autoscaler", "class that grows and shrinks the pool"),
    _o(
        "worker_concurrency",
        MODE,
        None,
        "processes or threads; None: number of CPUs, 'auto': as the cgroup allows",
    ),
    _o("worker_consumer", FACTORY, "qworker.consumer:Consumer", "class of the consumer"),
    _o("worker_pool", FACTORY, "prefork", "prefork, threads, asyncio, gevent, eventlet, solo"),
    _o("worker_pool_putlocks", BOOL, True, "wait for a free process before handing over a task"),
    _o("worker_pool_restarts", BOOL, False, "allow the command pool_restart"),
    _o(
        "worker_pool_start_method",
        TEXT,
        "fork",
        "how processes start",
        choices=("fork", "spawn", "forkserver"),
    ),
    _o("worker_prefetch_multiplier", INT, 4, "messages fetched per slot; 0: no limit"),
    _o("worker_disable_prefetch", BOOL, False, "fetch only what can run at once"),
    _o(
        "worker_enable_prefetch_count_reduction",
        BOOL,
        True,
        "fetch less after a reconnection with tasks running",
    ),
    _o("worker_eta_task_limit", INT, None, "tasks held in memory until due; None: no limit"),
    _o("worker_max_tasks_per_child", INT, None, "replace a process after so many tasks", minimum=0),
    _o("worker_max_memory_per_child", INT, None, "replace a process above so many kilobytes", minimum=0),
    _o("worker_lost_wait", NUMBER, 10.0, "seconds to wait for the result of a lost process"),
    _o("worker_proc_alive_timeout", NUMBER, 4.0, "seconds for a new process to report"),
    _o("worker_timer", FACTORY, None, "class of the timer; None: the pool chooses"),
    _o("worker_timer_precision", NUMBER, 1.0, "longest sleep of the timer, seconds"),
    _o("worker_disable_rate_limits", BOOL, False, "ignore rate limits"),
    _o("worker_enable_remote_control", BOOL, True, "listen for commands"),
    _o("worker_send_task_events", BOOL, False, "send events about tasks"),
    _o("worker_detect_quorum_queues", BOOL, True, "use per-consumer prefetch when a queue is a quorum queue"),
    _o(
        "worker_cancel_long_running_tasks_on_connection_loss",
        BOOL,
        False,
        "cancel late tasks when the broker is lost",
    ),
    _o(
        "worker_deduplicate_successful_tasks",
        BOOL,
        False,
        "look up redelivered late tasks before running them",
    ),
    _o("worker_soft_shutdown_timeout", NUMBER, 0.0, "seconds between warm and cold shutdown; 0: off"),
    _o("worker_enable_soft_shutdown_on_idle", BOOL, False, "wait even when nothing runs"),
    _o("worker_state_db", PATH, None, "file that keeps revoked tasks over restarts"),
    _o("worker_hijack_root_logger", BOOL, True, "replace handlers of the root logger"),
    _o("worker_redirect_stdouts", BOOL, True, "print goes to the log"),
    _o("worker_redirect_stdouts_level", MODE, "WARNING", "at this level"),
    _o("worker_log_color", BOOL, None, "colours; None: on a terminal"),
    _o("worker_log_format", TEXT, _LOG_FORMAT, "format of log lines"),
    _o("worker_task_log_format", TEXT, _TASK_LOG_FORMAT, "format of log lines of tasks"),
    _o("worker_log_datefmt", TEXT, None, "format of their dates"),
    _o("worker_task_log_datefmt", TEXT, None, "format of their dates"),
)

_BEAT = (
    _o("beat_schedule", DICT, {}, "name -> entry"),
    _o("beat_scheduler", FACTORY, "qbeat.schedulers:PersistentScheduler", "scheduler class or name"),
    _o("beat_schedule_filename", PATH, "celerybeat-schedule", "file of the persistent scheduler"),
    _o("beat_sync_every", INT, 0, "write it after so many tasks; 0: by time only", minimum=0),
    _o("beat_max_loop_interval", NUMBER, 0, "longest sleep, seconds; 0: the scheduler's own", minimum=0),
    _o("beat_cron_starting_deadline", NUMBER, None, "seconds that a missed crontab run is caught up"),
    _o("beat_enable_remote_control", BOOL, False, "listen for commands"),
    _o("beat_remote_control_max_tick_age", NUMBER, None, "seconds after which ping says beat hangs"),
)

_PROGRAMS = tuple(
    _o(f"{program}_{name}", kind, None, help)
    for program in ("worker", "beat", "events")
    for name, kind, help in (
        ("logfile", PATH, "log file when daemonized"),
        ("pidfile", PATH, "pid file when daemonized"),
        ("uid", MODE, "user to become"),
        ("gid", MODE, "group to become"),
        ("umask", MODE, "file mode mask"),
        ("executable", PATH, "Python to run"),
    )
)

_OURS = (
    _o("worker_prefetch_adaptive", BOOL, True, "fetch many messages of short tasks, few of long ones"),
    _o("worker_revokes_max", INT, 50_000, "revoked ids remembered", minimum=0),
    _o("worker_revoke_expires", NUMBER, 10_800.0, "seconds to remember them", minimum=0),
    _o("worker_successful_max", INT, 1000, "successful ids remembered", minimum=0),
    _o("worker_successful_expires", NUMBER, 10_800.0, "seconds to remember them", minimum=0),
    _o(
        "broker_max_deliveries",
        INT,
        5,
        "deliveries before a task that kills its worker is put aside; 0: no limit",
        minimum=0,
        nullable=True,
    ),
    _o(
        "broker_publish_timeout",
        NUMBER,
        5.0,
        "seconds for sending, tries included; None: for ever",
        minimum=0,
        nullable=True,
    ),
)

OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        option.name: option
        for group in (
            _GENERAL,
            _TASK,
            _ROUTING,
            _BROKER,
            _RESULT,
            _STORES,
            _SECURITY,
            _WORKER,
            _BEAT,
            _PROGRAMS,
            _OURS,
        )
        for option in group
    }
)
"""Every setting by name."""

REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "task_queue_ha_policy": "mirroring is configured on the broker by a policy",
        "riak_backend_settings": "the Riak result store is not supported",
        "worker_autoreload": "restart the worker by your supervisor",
        "database_db_names": "use database_table_names",
        "sqlalchemy_dburi": "put the URL into result_backend: db+<URL>",
        "sqlalchemy_engine_options": "use database_engine_options",
        "sqlalchemy_short_lived_sessions": "use database_short_lived_sessions",
        "sqlalchemy_table_names": "use database_table_names",
    }
)
"""Names that once were settings, and what to do instead."""
