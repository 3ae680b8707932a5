"""Names, parents and texts of errors (4EXC)."""

import builtins
import os
import pickle
import subprocess
import sys

import pytest

from qcore import errors

PARENTS = {
    "ImproperlyConfigured": "QError",
    "UnsupportedByBroker": "ImproperlyConfigured",
    "SecurityError": "QError",
    "TaskPredicate": "QError",
    "TaskError": "QError",
    "Ignore": "TaskPredicate",
    "Reject": "TaskPredicate",
    "Retry": "TaskPredicate",
    "QueueNotFound": "TaskError",
    "IncompleteStream": "TaskError",
    "NotRegistered": "TaskError",
    "AlreadyRegistered": "TaskError",
    "TimeoutError": "TaskError",
    "MaxRetriesExceededError": "TaskError",
    "TaskRevokedError": "TaskError",
    "InvalidTaskError": "TaskError",
    "ChordError": "TaskError",
    "BackendGetMetaError": "BackendError",
    "BackendStoreError": "BackendError",
}

INSTANCES = [
    errors.Retry("again", ValueError("x"), 30),
    errors.Reject("why", True),
    errors.Ignore(),
    errors.NotRegistered("proj.add"),
    errors.QueueNotFound("video"),
    errors.TimeoutError("5 seconds are over"),
    errors.MaxRetriesExceededError("enough", task_args=(1,), task_kwargs={"a": 2}),
    errors.BackendStoreError("full", state="SUCCESS", task_id="abc"),
    errors.TimeLimitExceeded(5),
    errors.SoftTimeLimitExceeded(2.5),
    errors.WorkerLostError("gone"),
    errors.Terminated(15),
    errors.MissingPackageError("`app.events`", "qevents"),
    errors.UnsupportedByBroker("memory://", "has no priorities", "leave priority out"),
    errors.WorkerShutdown(3),
    errors.LoadError("no module"),
]


@pytest.mark.parametrize(("child", "parent"), PARENTS.items())
def test_parents_are_those_of_the_list(child, parent):
    assert issubclass(getattr(errors, child), getattr(errors, parent))


@pytest.mark.parametrize("exc", INSTANCES, ids=lambda exc: type(exc).__name__)
def test_errors_pickle_with_their_attributes(exc):
    again = pickle.loads(pickle.dumps(exc))
    assert type(again) is type(exc)
    assert repr(again) == repr(exc)
    assert str(again) == str(exc)
    assert {k: repr(v) for k, v in vars(again).items()} == {k: repr(v) for k, v in vars(exc).items()}


@pytest.mark.parametrize("exc", INSTANCES, ids=lambda exc: type(exc).__name__)
def test_errors_rebuild_from_their_arguments(exc):
    assert str(type(exc)(*exc.args)) == str(exc)


def test_lookup_errors_are_key_errors_with_plain_text():
    assert issubclass(errors.NotRegistered, KeyError)
    assert issubclass(errors.QueueNotFound, KeyError)
    assert str(errors.NotRegistered("proj.add")) == "proj.add"


def test_repr_of_not_registered_tells_what_to_do():
    assert repr(errors.NotRegistered("a")) == (
        "Task of kind 'a' never registered, please make sure it's imported."
    )


def test_timeout_is_the_builtin_as_well():
    with pytest.raises(builtins.TimeoutError):
        raise errors.TimeoutError("late")


def test_retry_humanizes_seconds_and_times():
    assert errors.Retry(when=30).humanize() == "in 30s"
    assert errors.Retry(when="2026-01-01").humanize() == "at 2026-01-01"
    assert str(errors.Retry(exc=ValueError("x"), when=30)) == "Retry in 30s: ValueError('x')"
    assert str(errors.Retry(when=30)) == "Retry in 30s"


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("not me")


def test_retry_with_an_unpicklable_cause_travels_with_its_repr():
    again = pickle.loads(pickle.dumps(errors.Retry("m", Unpicklable("boom"), 3)))
    assert again.exc is None
    assert again.excs == "Unpicklable('boom')"


def test_retry_survives_a_cause_that_cannot_show_itself():
    class Silent(Exception):
        def __repr__(self):
            raise RuntimeError("no")

    assert "Silent" in errors.Retry(exc=Silent()).excs


def test_time_limits_show_the_limit():
    assert str(errors.TimeLimitExceeded(5)) == "TimeLimitExceeded(5,)"


def test_shutdown_carries_the_exit_code():
    assert errors.WorkerShutdown(3).code == 3
    assert isinstance(errors.WorkerTerminate(1), SystemExit)


def test_operational_error_is_kombus_and_no_qerror():
    import kombu.exceptions

    assert errors.OperationalError is kombu.exceptions.OperationalError
    assert errors.ContentDisallowed is kombu.exceptions.ContentDisallowed
    assert not issubclass(errors.OperationalError, errors.QError)


def test_importing_errors_does_not_import_kombu():
    code = "import sys, qcore.errors, qcore.settings; sys.exit('kombu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode == 0


def test_unknown_names_of_the_module_are_attribute_errors():
    with pytest.raises(AttributeError, match="NoSuchError"):
        _ = errors.NoSuchError


def test_missing_package_says_what_to_install():
    assert str(errors.MissingPackageError("`app.events`", "qevents")) == (
        "`app.events` needs the package qevents: pip install qevents"
    )


@pytest.mark.parametrize(
    ("cls", "module"),
    [
        (errors.MaxRetriesExceededError, "celery.exceptions"),
        (errors.WorkerLostError, "billiard.exceptions"),
        (ValueError, "builtins"),
    ],
)
def test_result_records_name_classes_that_every_client_has(cls, module):
    assert errors.wire_origin(cls) == (module, cls.__name__)


def test_our_classes_are_found_by_their_names_on_the_wire():
    assert errors.from_wire_origin("celery.exceptions", "ChordError") is errors.ChordError
    assert errors.from_wire_origin("celery.exceptions", "WorkerLostError") is errors.WorkerLostError
    assert errors.from_wire_origin("builtins", "ValueError") is None
    assert errors.from_wire_origin(None, "ChordError") is None
