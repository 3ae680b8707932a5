"""Signals: a program is told when something happens elsewhere in the process.

```python
@after_task_publish.connect(sender="proj.tasks.add")
def sent(sender=None, headers=None, **kwargs):
    print("sent", headers["id"])
```

A receiver is called with `signal=`, `sender=` and the arguments documented beside each signal. It must accept
`**kwargs`, so that new arguments can be added. What a receiver raises is logged and never reaches the sender.

On hot paths the sender asks first: `if signal.receivers: signal.send(...)`.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Hashable
from types import MethodType
from typing import Any, NamedTuple, TypeVar, overload

from .errors import SoftTimeLimitExceeded

logger = logging.getLogger(__name__)

Receiver = Callable[..., object]
F = TypeVar("F", bound=Receiver)


class _Connection(NamedTuple):
    key: tuple[Hashable, Hashable]
    get_receiver: Callable[[], Receiver | None]
    get_sender: Callable[[], object] | None
    """None: every sender."""


class Signal:
    """One kind of occurrence, and who wants to be told of it.

    Args:
        name: what it is called in logs.
        arguments: names of the keyword arguments that receivers get.
    """

    __slots__ = ("__weakref__", "_lock", "arguments", "name", "receivers")

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.arguments = arguments
        self.receivers: tuple[_Connection, ...] = ()
        self._lock = threading.RLock()

    @property
    def has_listeners(self) -> bool:
        """Whether anything is connected."""
        return bool(self.receivers)

    @overload
    def connect(
        self, receiver: F, *, sender: object = None, weak: bool = False, dispatch_uid: Hashable = None
    ) -> F: ...

    @overload
    def connect(
        self,
        receiver: None = None,
        *,
        sender: object = None,
        weak: bool = False,
        dispatch_uid: Hashable = None,
    ) -> Callable[[F], F]: ...

    def connect(
        self,
        receiver: F | None = None,
        *,
        sender: object = None,
        weak: bool = False,
        dispatch_uid: Hashable = None,
    ) -> F | Callable[[F], F]:
        """Call `receiver` whenever the signal is sent; usable as a decorator, with or without options.

        Connecting the same receiver for the same sender a second time changes nothing.

        Args:
            receiver: callable that accepts `**kwargs`.
            sender: only signals of this sender; text is compared as such, other objects by identity.
            weak: hold the receiver weakly, so that it goes away with its last other reference.
            dispatch_uid: identifies the receiver in place of its own identity.

        Raises:
            TypeError: `receiver` cannot be called with keyword arguments, or is a coroutine function.
        """
        if receiver is None:

            def decorate(function: F) -> F:
                self._add(function, sender, weak, dispatch_uid)
                return function

            return decorate
        self._add(receiver, sender, weak, dispatch_uid)
        return receiver

    def disconnect(
        self, receiver: Receiver | None = None, *, sender: object = None, dispatch_uid: Hashable = None
    ) -> bool:
        """Undo a `connect` with the same arguments; whether there was one."""
        key = (_receiver_key(receiver, dispatch_uid), _sender_key(sender))
        return self._remove(key)

    def send(self, sender: object = None, **named: object) -> list[tuple[Receiver, object]]:
        """Call every receiver connected for `sender`.

        Returns:
            Pairs of the receiver and what it returned, or the exception it raised.
        """
        responses: list[tuple[Receiver, object]] = []
        for connection in self.receivers:
            if connection.get_sender is not None and not _same(connection.get_sender(), sender):
                continue
            receiver = connection.get_receiver()
            if receiver is not None:
                responses.append((receiver, self._call(receiver, sender, named)))
        return responses

    def _call(self, receiver: Receiver, sender: object, named: dict[str, object]) -> object:
        try:
            return receiver(signal=self, sender=sender, **named)
        except SoftTimeLimitExceeded:
            raise  # meant for the task that runs, not caused by the receiver
        except Exception as exc:
            # Foreign code: the sender goes on, the log tells whose fault it is.
            logger.exception("Receiver %r of signal %s raised: %r", receiver, self.name, exc)
            return exc

    def _add(self, receiver: Receiver, sender: object, weak: bool, dispatch_uid: Hashable) -> None:
        _check_receiver(receiver, self.name)
        key = (_receiver_key(receiver, dispatch_uid), _sender_key(sender))
        connection = _Connection(
            key, self._reference(receiver, weak, key), self._sender_reference(sender, key)
        )
        with self._lock:
            if all(present.key != key for present in self.receivers):
                self.receivers = (*self.receivers, connection)

    def _remove(self, key: tuple[Hashable, Hashable]) -> bool:
        with self._lock:
            kept = tuple(connection for connection in self.receivers if connection.key != key)
            removed = len(kept) < len(self.receivers)
            self.receivers = kept
        return removed

    def _reference(
        self, receiver: Receiver, weak: bool, key: tuple[Hashable, Hashable]
    ) -> Callable[[], Receiver | None]:
        if not weak:
            return lambda: receiver
        if isinstance(receiver, MethodType):
            return weakref.WeakMethod(receiver, lambda _: self._remove(key))
        return weakref.ref(receiver, lambda _: self._remove(key))

    def _sender_reference(
        self, sender: object, key: tuple[Hashable, Hashable]
    ) -> Callable[[], object] | None:
        if sender is None:
            return None
        try:
            return weakref.ref(sender, lambda _: self._remove(key))
        except TypeError:  # text, numbers and slotted objects
            return lambda: sender

    def __repr__(self) -> str:
        return f"<Signal {self.name}({', '.join(self.arguments)})>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        name = self.name
        return name if globals().get(name) is self else (Signal, (name, *self.arguments))


def _same(wanted: object, sender: object) -> bool:
    return wanted is sender or (isinstance(wanted, str) and wanted == sender)


def _sender_key(sender: object) -> Hashable:
    return sender if sender is None or isinstance(sender, str) else id(sender)


def _receiver_key(receiver: Receiver | None, dispatch_uid: Hashable) -> Hashable:
    if dispatch_uid is not None:
        return dispatch_uid
    if isinstance(receiver, MethodType):
        return id(receiver.__self__), id(receiver.__func__)
    return id(receiver)


def _check_receiver(receiver: Receiver, signal: str) -> None:
    if not callable(receiver):
        raise TypeError(f"a receiver of signal {signal} must be callable, not {receiver!r}")
    if inspect.iscoroutinefunction(receiver):
        raise TypeError(
            f"receiver {receiver!r} of signal {signal} is a coroutine function: use a plain function"
        )
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):  # builtins do not tell; assume the best
        return
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise TypeError(
            f"receiver {receiver!r} of signal {signal} must accept keyword arguments: add **kwargs"
        )


# --- tasks: in the process that sends --------------------------------------------------------------

before_task_publish = Signal(
    "before_task_publish",
    "body",
    "exchange",
    "routing_key",
    "headers",
    "properties",
    "declare",
    "retry_policy",
)
"""A task is about to be sent. Sender: the task's name.

body: `(args, kwargs, embed)` or the mapping of protocol 1. exchange: name or `Exchange`. routing_key: text.
headers, properties, declare (entities declared first), retry_policy (arguments of `Connection.ensure`): may
be changed in place.
"""

after_task_publish = Signal("after_task_publish", "headers", "body", "exchange", "routing_key")
"""A task has been sent. Sender: the task's name. Arguments as of `before_task_publish`."""

# --- tasks: in the process that runs them ------------------------------------------------------------

task_prerun = Signal("task_prerun", "task_id", "task", "args", "kwargs")
"""A task is about to run. Sender: the task."""

task_postrun = Signal("task_postrun", "task_id", "task", "args", "kwargs", "retval", "state")
"""A task has run.

Sender: the task. retval: what it returned or raised. state: name of the resulting state.
"""

task_success = Signal("task_success", "result", "runtime")
"""A task returned. Sender: the task. result: its value. runtime: seconds, or None."""

task_retry = Signal("task_retry", "request", "reason", "einfo")
"""A task will be tried again.

Sender: the task. request: its context. reason: exception or text. einfo: exception information with a
traceback.
"""

task_failure = Signal("task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo")
"""A task failed.

Sender: the task. exception: what it raised. traceback: traceback object. einfo: exception information.
"""

task_internal_error = Signal(
    "task_internal_error", "task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"
)
"""Something around the task's body failed (a handler, the result store). Sender: the task."""

# --- tasks: in the worker's main process ---------------------------------------------------------------

task_received = Signal("task_received", "request")
"""A task message was accepted. Sender: the consumer. request: the worker's request."""

task_revoked = Signal("task_revoked", "request", "terminated", "signum", "expired")
"""A task was revoked, terminated or had expired. Sender: the task.

request: the worker's request, not `task.request`. terminated: whether it was running. signum: signal used
(None with
`terminated` means TERM). expired: whether `expires` was the reason.
"""

task_unknown = Signal("task_unknown", "message", "exc", "name", "id")
"""A message asks for a task that is not registered.

Sender: the consumer. message: the raw one. exc: the error.
"""

task_rejected = Signal("task_rejected", "message", "exc")
"""A message on a task queue is not a task.

Sender: the consumer. message: the raw one. exc: the error or None.
"""

# --- programs ------------------------------------------------------------------------------------------

import_modules = Signal("import_modules")
"""A program wants the modules of `include` and `imports` imported. Sender: the app."""

user_preload_options = Signal("user_preload_options", "app", "options")
"""A command has read the options added to `app.user_options["preload"]`.

Sender: the command. options: mapping with defaults.
"""

# --- worker ----------------------------------------------------------------------------------------------

worker_setup_init = Signal("worker_setup_init", "instance", "conf", "options")
"""The very first signal of a starting worker; changes of `conf` take effect. Sender: the node name.

instance: the worker, with only `app` and `hostname` set. options: command line options with defaults.
"""

worker_after_setup = Signal("worker_after_setup", "instance", "conf")
"""The worker is set up (queues selected, logging on) and about to run. Sender: the node name."""

worker_init = Signal("worker_init")
"""The worker is about to start. Sender: the worker."""

worker_ready = Signal("worker_ready")
"""The worker accepts work. Sender: the consumer."""

worker_shutting_down = Signal("worker_shutting_down", "sig", "how", "exitcode")
"""The worker has been told to stop.

Sender: the node name. sig: signal name. how: `Warm`, `Soft`, `Cold`. exitcode: a number.
"""

worker_shutdown = Signal("worker_shutdown")
"""The worker is about to exit. Sender: the worker."""

worker_before_create_process = Signal("worker_before_create_process")
"""A child process is about to be created, in the parent. Sender: the pool."""

worker_process_init = Signal("worker_process_init")
"""A pool child has started, in the child; receivers must return within 4 seconds."""

worker_process_shutdown = Signal("worker_process_shutdown", "pid", "exitcode")
"""A pool child is about to exit, in the child; not guaranteed."""

heartbeat_sent = Signal("heartbeat_sent")
"""A heartbeat event was sent. Sender: the `Heart`."""

# --- beat --------------------------------------------------------------------------------------------------

beat_init = Signal("beat_init")
"""Beat starts, on its own or in a worker. Sender: the `Service`."""

beat_embedded_init = Signal("beat_embedded_init")
"""Beat starts within a worker; sent after `beat_init`. Sender: the `Service`."""

# --- eventlet pool --------------------------------------------------------------------------------------

eventlet_pool_started = Signal("eventlet_pool_started")
"""The pool has started. Sender: the pool."""

eventlet_pool_preshutdown = Signal("eventlet_pool_preshutdown")
"""The pool is about to wait for what runs. Sender: the pool."""

eventlet_pool_postshutdown = Signal("eventlet_pool_postshutdown")
"""The pool has been joined. Sender: the pool."""

eventlet_pool_apply = Signal("eventlet_pool_apply", "target", "args", "kwargs")
"""A call is handed to the pool. Sender: the pool."""

# --- logging --------------------------------------------------------------------------------------

setup_logging = Signal("setup_logging", "loglevel", "logfile", "format", "colorize")
"""Logging is about to be set up; when anything is connected, the receiver does it all and we nothing."""

after_setup_logger = Signal("after_setup_logger", "logger", "loglevel", "logfile", "format", "colorize")
"""The root logger was set up. logger: the logger."""

after_setup_task_logger = Signal(
    "after_setup_task_logger", "logger", "loglevel", "logfile", "format", "colorize"
)
"""The logger of tasks was set up. logger: the logger."""
