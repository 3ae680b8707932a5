"""Every error of the family's core, and the tree they form.

```
QError                          root of everything below unless marked otherwise
├── ImproperlyConfigured        a setting is missing, misspelt or of the wrong type
│   ├── LoadError               an app or a module with tasks cannot be loaded (also ImportError)
│   └── UnsupportedByBroker     a call, a queue or a setting asks for what the broker cannot do
├── MissingPackageError         a feature needs a package that is not installed (also ImportError)
├── SecurityError               signing, certificates, refused content
├── TaskPredicate               raised by task code to end a run in a special way
│   ├── Ignore                  store no result, acknowledge the message
│   ├── Reject                  reject the message, optionally requeue it
│   └── Retry                   the task was sent again
├── TaskError                   something is wrong with a task or its result
│   ├── QueueNotFound           (also KeyError)
│   ├── IncompleteStream        a result arrived only in part
│   ├── NotRegistered           (also KeyError)
│   ├── AlreadyRegistered
│   ├── TimeoutError            waiting for a result took too long (also the builtin)
│   ├── MaxRetriesExceededError
│   ├── TaskRevokedError
│   ├── InvalidTaskError        a message is not a valid task message
│   └── ChordError              a member of a chord failed, or the count is broken
├── BackendError                the result store failed
│   ├── BackendGetMetaError
│   └── BackendStoreError
└── ExecutionError              the pool or the worker ended a run
    ├── SoftTimeLimitExceeded
    ├── TimeLimitExceeded
    ├── WorkerLostError
    └── Terminated

SystemExit
├── WorkerShutdown              warm shutdown, carries the exit code
└── WorkerTerminate             cold shutdown, carries the exit code

UserWarning
└── QWarning
    ├── AlwaysEagerIgnored, DuplicateNodenameWarning, DuplicateTaskNameWarning,
    └── FixupWarning, NotConfigured, SecurityWarning
DeprecationWarning ─ QDeprecationWarning
PendingDeprecationWarning ─ QPendingDeprecationWarning

kombu.exceptions (the very same classes, looked up on first use so that importing this module stays cheap)
├── OperationalError            the broker cannot be reached; raised by sending
├── ContentDisallowed           a message has a content type that `accept_content` does not list
├── DecodeError, EncodeError, SerializationError
```

All of them pickle and rebuild with their attributes, and `type(exc)(*exc.args)` rebuilds what the result
record on the wire carries.
"""

from __future__ import annotations

import builtins
import pickle
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class KombuError(Exception):
        """Stands for kombu's base class, which has no annotations."""

    class OperationalError(KombuError):
        """The broker cannot be reached (`kombu.exceptions.OperationalError`)."""

    class SerializationError(KombuError):
        """Content cannot be serialized or rebuilt (`kombu.exceptions.SerializationError`)."""

    class EncodeError(SerializationError):
        """An object cannot be encoded (`kombu.exceptions.EncodeError`)."""

    class DecodeError(SerializationError):
        """A body cannot be decoded (`kombu.exceptions.DecodeError`)."""

    class ContentDisallowed(SerializationError):
        """The content type is not accepted (`kombu.exceptions.ContentDisallowed`)."""


_KOMBU_NAMES = frozenset(
    {
        "KombuError",
        "OperationalError",
        "SerializationError",
        "EncodeError",
        "DecodeError",
        "ContentDisallowed",
    }
)


def __getattr__(name: str) -> Any:
    """Hand out kombu's classes without importing kombu until somebody asks for one."""
    if name == "KombuError":
        from kombu.exceptions import KombuError

        found: Any = KombuError
    elif name in _KOMBU_NAMES:
        import kombu.exceptions

        found = getattr(kombu.exceptions, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


class QError(Exception):
    """Root of the errors of the q family."""


class ImproperlyConfigured(QError):
    """A setting or an option is missing, unknown or of the wrong type."""


class LoadError(ImproperlyConfigured, ImportError):
    """An app, or a module with tasks, does not exist or is broken; the text says which and where."""


class UnsupportedByBroker(ImproperlyConfigured):
    """The broker cannot do what a call, a queue or a setting asks for; nothing was sent.

    Args:
        broker: its URL, without the password.
        lack: what it does not have, and what asks for it; a predicate of `the broker …`.
        advice: what to do.
    """

    def __init__(self, broker: str = "", lack: str = "", advice: str = "") -> None:
        self.broker = broker
        self.lack = lack
        self.advice = advice
        super().__init__(broker, lack, advice)

    def __str__(self) -> str:
        if not self.lack:
            return self.broker
        return f"the broker {self.broker} {self.lack}: {self.advice}"


class MissingPackageError(QError, ImportError):
    """A feature was asked for whose package is not installed; the text says what to install."""

    def __init__(self, what: str = "", package: str = "") -> None:
        self.what = what
        self.package = package
        super().__init__(what, package)

    def __str__(self) -> str:
        if not self.package:
            return self.what
        return f"{self.what} needs the package {self.package}: pip install {self.package}"


class SecurityError(QError):
    """A signature, a certificate or a key is missing or wrong."""


# --- how a run of a task ends ---------------------------------------------------------------------


class TaskPredicate(QError):
    """Base of what task code raises to end its run in a special way."""


class Ignore(TaskPredicate):
    """End the run without storing a state; the message is acknowledged."""


class Reject(TaskPredicate):
    """Reject the message of the running task (effective with `acks_late`).

    Args:
        reason: text or exception, for the log and for the stored result.
        requeue: true puts the message back; otherwise it is dropped or dead-lettered.
    """

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"

    __str__ = __repr__


class Retry(TaskPredicate):
    """The task has been sent again and will run later.

    Args:
        message: text for the log; `str()` of the error is this when given.
        exc: the exception that caused the retry. An unpicklable one travels as its repr only.
        when: seconds from now, or the time of the next try.
        is_eager: the task runs eagerly, so `sig` is executed on the spot.
        sig: the signature to run next when eager.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: object = None,
    ) -> None:
        self.message = message
        self.exc = None if isinstance(exc, str) else exc
        self.excs = exc if isinstance(exc, str) else None if exc is None else _safe_repr(exc)
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when)

    def humanize(self) -> str:
        """When the next try is due: `in 30s` or `at 2026-01-01 12:00:00`."""
        if isinstance(self.when, (int, float)):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[Any, ...]:
        exc = self.exc if self.exc is not None and _pickles(self.exc) else self.excs
        return type(self), (self.message, exc, self.when)


# --- tasks and results ----------------------------------------------------------------------------


class TaskError(QError):
    """Base of the errors about tasks and their results."""


class _NamedKeyError(TaskError, KeyError):
    """A lookup by name failed; unlike the builtin, the text is not quoted."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class QueueNotFound(_NamedKeyError):
    """A queue is used that is neither declared nor may be created."""


class IncompleteStream(TaskError):
    """Only a part of a result arrived."""


class NotRegistered(_NamedKeyError):
    """A task name is not in the registry; `str()` is the name alone."""

    def __repr__(self) -> str:
        return f"Task of kind {str(self)!r} never registered, please make sure it's imported."


class AlreadyRegistered(TaskError):
    """A second, different task claims a name."""


class TimeoutError(TaskError, builtins.TimeoutError):
    """An operation did not end in the time given."""


class MaxRetriesExceededError(TaskError):
    """A task has been retried as often as it may.

    `task_args` and `task_kwargs` are those of the task's last call.
    """

    def __init__(self, *args: object, task_args: object = (), task_kwargs: object = None) -> None:
        self.task_args = task_args
        self.task_kwargs = {} if task_kwargs is None else task_kwargs
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """The task was revoked, terminated, or had expired."""


class InvalidTaskError(TaskError):
    """A message does not hold a valid task."""


class ChordError(TaskError):
    """A member of a chord's header failed, or its parts cannot be counted or joined."""


class BackendError(QError):
    """The result store failed; `state` and `task_id` name the record when there is one."""

    def __init__(self, *args: object, state: str | None = None, task_id: str | None = None) -> None:
        self.state = state
        self.task_id = task_id
        super().__init__(*args)

    def __repr__(self) -> str:
        about = " ".join(
            f"{name}:{value}" for name, value in (("state", self.state), ("task_id", self.task_id)) if value
        )
        return f"{super().__repr__()} {about}".rstrip()


class BackendGetMetaError(BackendError):
    """A record cannot be read."""


class BackendStoreError(BackendError):
    """A record cannot be written."""


# --- the worker ends a run ------------------------------------------------------------------------


class ExecutionError(QError):
    """Base of the errors with which the pool or the worker ends a run."""


class _LimitExceeded(ExecutionError):
    def __str__(self) -> str:
        return f"{type(self).__name__}{self.args!r}"


class SoftTimeLimitExceeded(_LimitExceeded):
    """The soft time limit is over; raised inside the task, which may clean up."""


class TimeLimitExceeded(_LimitExceeded):
    """The hard time limit is over; the process was killed. `args[0]` is the limit in seconds."""


class WorkerLostError(ExecutionError):
    """The process that ran the task died."""


class Terminated(ExecutionError):
    """The process that ran the task was ended by a revoke. `args[0]` is the signal number."""


class WorkerShutdown(SystemExit):
    """End the worker when the running tasks are done; carries the exit code."""


class WorkerTerminate(SystemExit):
    """End the worker at once; carries the exit code."""


# --- warnings -------------------------------------------------------------------------------------


class QWarning(UserWarning):
    """Base of the family's warnings."""


class AlwaysEagerIgnored(QWarning):
    """`task_always_eager` is set, yet the call is sent to the broker."""


class DuplicateNodenameWarning(QWarning):
    """Several workers use one node name, so replies cannot be told apart."""


class DuplicateTaskNameWarning(QWarning):
    """Two different functions were registered under one name."""


class FixupWarning(QWarning):
    """An integration with a framework cannot be loaded."""


class NotConfigured(QWarning):
    """No configuration module was found."""


class SecurityWarning(QWarning):
    """The chosen settings are unsafe."""


class QDeprecationWarning(DeprecationWarning):
    """A feature goes away in a coming version."""


class QPendingDeprecationWarning(PendingDeprecationWarning):
    """A feature goes away in a later version."""


# --- names on the wire ----------------------------------------------------------------------------

_FROM_POOL_LIBRARY = (SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError, Terminated)
_FROM_PEER = (
    ImproperlyConfigured,
    SecurityError,
    Ignore,
    Reject,
    Retry,
    TaskPredicate,
    TaskError,
    QueueNotFound,
    IncompleteStream,
    NotRegistered,
    AlreadyRegistered,
    TimeoutError,
    MaxRetriesExceededError,
    TaskRevokedError,
    InvalidTaskError,
    ChordError,
    BackendError,
    BackendGetMetaError,
    BackendStoreError,
)
_WIRE_MODULES: dict[type[BaseException], str] = {
    **dict.fromkeys(_FROM_POOL_LIBRARY, "billiard.exceptions"),
    **dict.fromkeys(_FROM_PEER, "celery.exceptions"),
}
_BY_WIRE_NAME: dict[tuple[str, str], type[BaseException]] = {
    (module, cls.__name__): cls for cls, module in _WIRE_MODULES.items()
}
_BY_WIRE_NAME.update({("celery.exceptions", cls.__name__): cls for cls in _FROM_POOL_LIBRARY})


def wire_origin(cls: type[BaseException]) -> tuple[str, str]:
    """Module and name that stand for `cls` in result records, so that every client can rebuild it."""
    return _WIRE_MODULES.get(cls, cls.__module__), cls.__qualname__


def from_wire_origin(module: str | None, name: str) -> type[BaseException] | None:
    """Our class for a module and name of `wire_origin`; None when the pair is not one of ours."""
    return _BY_WIRE_NAME.get((module or "", name))


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as exc:  # noqa: BLE001 - foreign code; the text only loses detail
        return f"<unrepresentable {type(value).__name__}: {exc!r}>"


def _pickles(exc: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:  # noqa: BLE001 - foreign code; the exception then travels as its repr
        return False
    return True
