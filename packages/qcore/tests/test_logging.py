"""Logging set-up and redirection of print (4LOG, SW-23..25)."""

import contextlib
import io
import logging
import os
import sys
import threading

import pytest

from qcore import current, signals
from qcore.logging import ColorFormatter, Logging, TaskFormatter
from qcore.redirect import LoggingStream
from qcore.settings import Settings
from qcore.utils.log import REDIRECT_LOGGER, TASK_LOGGER, get_task_logger


class AppLike:
    def __init__(self, **settings):
        self.conf = Settings(default_module=None, environ={})
        self.conf.update(settings)


@pytest.fixture(autouse=True)
def logging_state(monkeypatch):
    """Puts loggers, streams and environment back."""
    names = [None, "q", TASK_LOGGER, REDIRECT_LOGGER]
    saved = [(logging.getLogger(name), list(logging.getLogger(name).handlers)) for name in names]
    levels = [(logger, logger.level, logger.propagate) for logger, _ in saved]
    for name in ("Q_LOG_LEVEL", "Q_LOG_FILE", "Q_LOG_REDIRECT", "Q_LOG_REDIRECT_LEVEL"):
        monkeypatch.setenv(name, "")
    stdout, stderr = sys.stdout, sys.stderr
    yield
    sys.stdout, sys.stderr = stdout, stderr
    for logger, handlers in saved:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers = handlers
    for logger, level, propagate in levels:
        logger.level, logger.propagate = level, propagate


@pytest.fixture
def connected():
    """Connects receivers to signals for the time of the test."""
    with contextlib.ExitStack() as stack:

        def connect(signal, receiver):
            signal.connect(receiver)
            stack.callback(signal.disconnect, receiver)

        yield connect


def lines(path):
    return path.read_text().splitlines()


def test_root_and_task_lines(tmp_path):
    log = Logging(
        AppLike(worker_log_format="ROOT %(message)s", worker_task_log_format="TASK %(task_name)s %(message)s")
    )
    assert log.setup("info", tmp_path / "worker.log")
    logging.getLogger("anything").info("one")
    get_task_logger("proj.tasks_for_logging").info("two")
    logging.getLogger("anything").debug("hidden")
    assert lines(tmp_path / "worker.log") == ["ROOT one", "TASK ??? two"]


def test_default_formats(tmp_path):
    Logging(AppLike()).setup("info", tmp_path / "w.log")
    logging.getLogger("x").info("hello")
    get_task_logger("proj.more_tasks").info("hello")
    first, second = lines(tmp_path / "w.log")
    assert first.endswith(": INFO/MainProcess] hello")
    assert second.endswith(": INFO/MainProcess] ???[???]: hello")


def test_the_running_task_is_named(tmp_path):
    class TaskLike:
        name = "proj.add"

    class RequestLike:
        id = "abc"

    Logging(AppLike(worker_task_log_format="%(task_name)s[%(task_id)s]: %(message)s")).setup(
        "info", tmp_path / "w.log"
    )
    token = current.push_task(TaskLike, RequestLike)
    try:
        get_task_logger("proj.yet_more_tasks").info("hello")
    finally:
        current.pop_task(token)
    assert lines(tmp_path / "w.log") == ["proj.add[abc]: hello"]


def test_fields_given_by_the_caller_are_kept():
    record = logging.LogRecord("x", 20, "", 1, "m", None, None)
    record.task_name, record.task_id = "given", "id"
    assert TaskFormatter("%(task_name)s %(task_id)s").format(record) == "given id"


def test_a_second_set_up_does_nothing(tmp_path):
    log = Logging(AppLike())
    assert log.setup("info", tmp_path / "a.log")
    assert not log.setup("info", tmp_path / "b.log")
    logging.getLogger("x").info("hello")
    assert not (tmp_path / "b.log").exists()


def test_handlers_of_the_root_logger_are_replaced_or_kept(tmp_path):
    own = logging.NullHandler()
    logging.getLogger().addHandler(own)
    Logging(AppLike(worker_hijack_root_logger=False)).setup("info", tmp_path / "a.log")
    assert own in logging.getLogger().handlers
    Logging(AppLike()).setup("info", tmp_path / "b.log")
    assert own not in logging.getLogger().handlers


def test_a_receiver_of_setup_logging_replaces_it_all(connected, tmp_path):
    got = {}
    connected(signals.setup_logging, lambda **kwargs: got.update(kwargs))
    handlers = list(logging.getLogger().handlers)
    assert not Logging(AppLike()).setup("debug", tmp_path / "a.log", redirect_stdouts=True)
    assert logging.getLogger().handlers == handlers
    assert not isinstance(sys.stdout, LoggingStream)
    assert (got["loglevel"], got["logfile"]) == (10, str(tmp_path / "a.log"))


def test_receivers_may_add_to_it(connected, tmp_path):
    got = []
    connected(
        signals.after_setup_logger, lambda logger=None, **kwargs: got.append((logger.name, sorted(kwargs)))
    )
    connected(
        signals.after_setup_task_logger,
        lambda logger=None, **kwargs: got.append((logger.name, sorted(kwargs))),
    )
    Logging(AppLike()).setup("info", tmp_path / "a.log")
    keys = ["colorize", "format", "logfile", "loglevel", "sender", "signal"]
    assert got == [("root", keys), (TASK_LOGGER, keys)]


def test_date_format(tmp_path):
    Logging(AppLike(worker_log_format="%(asctime)s", worker_log_datefmt="day")).setup(
        "info", tmp_path / "a.log"
    )
    logging.getLogger("x").info("")
    assert lines(tmp_path / "a.log") == ["day"]


def test_names_of_log_files(tmp_path):
    log = Logging(AppLike(worker_log_format="%(message)s", worker_task_log_format="%(message)s"))
    log.setup("info", tmp_path / "%n%I.log", hostname="worker1@example.com")
    logging.getLogger("x").info("main")
    log.setup_in_child(2)
    logging.getLogger("x").info("child")
    get_task_logger("proj.child_tasks").info("task")
    assert lines(tmp_path / "worker1.log") == ["main"]
    assert lines(tmp_path / "worker1-2.log") == ["child", "task"]


def test_one_file_for_all_processes_stays(tmp_path):
    log = Logging(AppLike())
    log.setup("info", tmp_path / "%n.log", hostname="worker1@example.com")
    handlers = list(logging.getLogger().handlers)
    log.setup_in_child(1)
    assert logging.getLogger().handlers == handlers


def test_unknown_levels_are_refused():
    with pytest.raises(ValueError, match="loud"):
        Logging(AppLike()).setup("loud")


def test_the_environment_tells_new_processes(tmp_path):
    Logging(AppLike()).setup("info", tmp_path / "a.log", redirect_stdouts=True, redirect_level="ERROR")
    assert os.environ["Q_LOG_LEVEL"] == "20"
    assert os.environ["Q_LOG_FILE"] == str(tmp_path / "a.log")
    assert (os.environ["Q_LOG_REDIRECT"], os.environ["Q_LOG_REDIRECT_LEVEL"]) == ("1", "ERROR")


@pytest.mark.parametrize(
    ("level", "start"),
    [
        (logging.DEBUG, "\x1b[34m"),
        (logging.WARNING, "\x1b[33m"),
        (logging.ERROR, "\x1b[31m"),
        (logging.CRITICAL, "\x1b[35m"),
    ],
)
def test_colours(level, start):
    record = logging.LogRecord("x", level, "", 1, "m", None, None)
    assert ColorFormatter("%(message)s", use_color=True).format(record) == f"{start}m\x1b[0m"
    assert ColorFormatter("%(message)s").format(record) == "m"


def test_when_colours_are_used(monkeypatch):
    log = Logging(AppLike())
    monkeypatch.setattr(sys, "__stderr__", io.StringIO())
    assert not log.supports_color()
    assert log.supports_color(True, "file.log")
    monkeypatch.setattr(sys.__stderr__, "isatty", lambda: True, raising=False)
    assert log.supports_color()
    assert not log.supports_color(None, "file.log")
    monkeypatch.setattr(sys, "platform", "win32")
    assert not log.supports_color(True)


# --- print --------------------------------------------------------------------------------------------


@pytest.fixture
def recorded():
    records = []

    class Recorder(logging.Handler):
        def emit(self, record):
            records.append((record.levelname, record.getMessage()))

    logger = logging.getLogger("redirect.test")
    handler = Recorder()
    logger.addHandler(handler)
    logger.setLevel(1)
    logger.propagate = False
    yield logger, records
    logger.removeHandler(handler)


def test_print_becomes_lines(recorded):
    logger, records = recorded
    stream = Logging(AppLike()).redirect_stdouts_to_logger(logger, "WARNING")
    print("a", "b", 100, "%s")
    print("partial", end="")
    assert records == [("WARNING", "a b 100 %s")]
    print(" line\nsecond")
    assert records[1:] == [("WARNING", "partial line"), ("WARNING", "second")]
    print("no end", end="", flush=True)
    assert records[3:] == [("WARNING", "no end")]
    assert sys.stdout is stream
    assert sys.stderr is stream


def test_only_one_stream_may_be_redirected(recorded):
    stderr = sys.stderr
    Logging(AppLike()).redirect_stdouts_to_logger(recorded[0], stderr=False)
    assert sys.stderr is stderr


def test_blank_lines_are_dropped(recorded):
    logger, records = recorded
    LoggingStream(logger, 30).write("\n  \n\nx\n")
    assert records == [("WARNING", "x")]


def test_a_handler_that_prints_does_not_log_its_own_words_for_ever(recorded, monkeypatch):
    logger, _ = recorded
    stream = LoggingStream(logger, 30)
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", terminal)

    class Talkative(logging.Handler):
        def emit(self, record):
            stream.write("talk\n")

    handler = Talkative()
    logger.addHandler(handler)
    try:
        stream.write("hello\n")
    finally:
        logger.removeHandler(handler)
    assert terminal.getvalue() == "talk\n"


def test_lines_of_threads_do_not_mix(recorded):
    logger, records = recorded
    stream = LoggingStream(logger, 30)
    stream.write("main ")
    thread = threading.Thread(target=stream.write, args=("thread\n",))
    thread.start()
    thread.join()
    stream.write("end\n")
    assert records == [("WARNING", "thread"), ("WARNING", "main end")]


def test_it_is_a_text_stream(recorded):
    stream = LoggingStream(recorded[0], 30)
    assert stream.writable()
    assert not stream.isatty()
    assert stream.encoding == "utf-8"
    assert stream.write("abc") == 3
    stream.writelines(["d\n"])
    assert recorded[1] == [("WARNING", "abcd")]
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()
