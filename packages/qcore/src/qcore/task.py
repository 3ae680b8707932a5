"""The task: what a decorated function becomes, and the base of task classes.

A task is called three ways: directly (`add(2, 2)`, here and now), by message (`add.delay(2, 2)`), and eagerly
(`add.apply((2, 2))`, here, but through the same steps as in a worker). Options that are not given on the task
come from the configuration at the time they are read.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, cast
from uuid import uuid4

from attrs import evolve

from qcore import current, errors, states
from qcore.annotations import annotations_for
from qcore.arguments import ArgumentCheck
from qcore.autoretry import add_autoretry
from qcore.backend.record import ResultRecord
from qcore.canvas import Signature, chunks, signature, xmap, xstarmap
from qcore.errors import Ignore, ImproperlyConfigured, MaxRetriesExceededError, Reject, Retry
from qcore.request import Context
from qcore.results import AsyncResult, EagerResult

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_PUBLISH_OPTIONS = (
    "queue",
    "routing_key",
    "exchange",
    "priority",
    "expires",
    "serializer",
    "delivery_mode",
    "compression",
    "time_limit",
    "soft_time_limit",
)


class FromSettings:
    """A task option whose default is a setting, read whenever the option is."""

    __slots__ = ("setting",)

    def __init__(self, setting: str) -> None:
        self.setting = setting

    def __get__(self, task: Any, owner: type) -> Any:
        if task is None:
            return None
        return getattr(task.app.conf, self.setting)


class Task(Generic[P, R]):
    """One task of an app, or a base class of tasks when it has no app.

    Class attributes are options; a subclass or the decorator overrides them. A subclass defines `run`.
    """

    name: str = ""
    typing: bool | None = None
    max_retries: int | None = 3
    default_retry_delay: float = 180
    rate_limit: Any = FromSettings("task_default_rate_limit")
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: Any = FromSettings("task_ignore_result")
    store_errors_even_if_ignored: Any = FromSettings("task_store_errors_even_if_ignored")
    store_eager_result: Any = FromSettings("task_store_eager_result")
    serializer: Any = FromSettings("task_serializer")
    compression: Any = FromSettings("task_compression")
    acks_late: Any = FromSettings("task_acks_late")
    acks_on_failure_or_timeout: Any = FromSettings("task_acks_on_failure_or_timeout")
    acks_on_failure: Any = FromSettings("task_acks_on_failure")
    acks_on_timeout: Any = FromSettings("task_acks_on_timeout")
    track_started: Any = FromSettings("task_track_started")
    reject_on_worker_lost: Any = FromSettings("task_reject_on_worker_lost")
    retry_on_worker_lost: Any = FromSettings("task_retry_on_worker_lost")
    throws: tuple[type[BaseException], ...] = ()
    trail: bool = True
    send_events: bool = True
    expires: Any = None
    priority: int | None = None
    queue: Any = None
    exchange: Any = None
    routing_key: str | None = None
    delivery_mode: Any = None
    resultrepr_maxsize: int = 1024
    autoretry_for: Sequence[type[BaseException]] = ()
    dont_autoretry_for: Sequence[type[BaseException]] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    pydantic: bool = False
    pydantic_strict: bool = False
    pydantic_context: Mapping[str, Any] | None = None
    pydantic_dump_kwargs: Mapping[str, Any] | None = None
    abstract: bool = True
    Strategy: Any = "qworker.strategy:default"
    Request: Any = "qworker.request:Request"

    MaxRetriesExceededError: ClassVar[type[MaxRetriesExceededError]] = MaxRetriesExceededError

    _app: Any = None
    _backend: Any = None
    _default_request: Context | None = None
    _argument_check: ArgumentCheck | None = None
    _annotated: bool = False
    __bound_self__: bool = False

    if TYPE_CHECKING:

        def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """The body."""

    # --- the app -------------------------------------------------------------------------------

    @property
    def app(self) -> Any:
        """The app this task is bound to, else the current one."""
        return self._app if self._app is not None else current.get_current_app()

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    def bind(self, app: Any) -> None:
        """Belong to `app`: take its `task_annotations` and run the `on_bound` hook."""
        self._app = app
        self.abstract = False
        self.annotate(app.conf.task_annotations)
        self.on_bound(app)

    def on_bound(self, app: Any) -> None:
        """Hook: the task was bound to `app`."""

    def annotate(self, annotations: Any) -> None:
        """Apply the `task_annotations` that name this task (or `*`); once."""
        if self._annotated or not annotations:
            return
        self._annotated = True
        for source in annotations if isinstance(annotations, (list, tuple)) else [annotations]:
            for found in annotations_for(source, self):
                for option, value in found.items():
                    if option.startswith("@"):
                        wrapped = value(getattr(self, option[1:]))
                        setattr(self, option[1:], wrapped)
                    else:
                        setattr(self, option, value)

    @property
    def backend(self) -> Any:
        """The result store of this task."""
        return self._backend if self._backend is not None else self.app.backend

    @backend.setter
    def backend(self, backend: Any) -> None:
        self._backend = backend

    @property
    def OperationalError(self) -> type[Exception]:
        """What sending raises when the broker cannot be reached."""
        return errors.OperationalError

    @property
    def request(self) -> Any:
        """The `Context` of the running execution; an empty one when the task does not run."""
        request = current.get_request(self)
        if request is not None:
            return request
        if self._default_request is None:
            self._default_request = Context()
        return self._default_request

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Make `Context(*args, **kwargs)` the request of this task until `pop_request`."""
        current.push_request(self, Context(*args, **kwargs))

    def pop_request(self) -> None:
        """Undo `push_request`."""
        current.pop_request(self)

    # --- calling -------------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body here and now; no message, no result record."""
        token = current.push_task(self, Context(args=args, kwargs=kwargs, task=self.name))
        try:
            return self.run(*args, **kwargs)
        finally:
            current.pop_task(token)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send a call with these arguments; shortcut of `apply_async(args, kwargs)`."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send a call.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            task_id: the id to use; default a new uuid4.
            producer: a kombu Producer to use; default a pooled connection.
            link: signature(s) applied with the result on success.
            link_error: signature(s) applied when the task fails.
            shadow: name for logs and monitors.
            **options: `countdown` (seconds), `eta` (datetime), `expires` (seconds or datetime), `queue`,
                `exchange`, `routing_key`, `priority` (0-255; 9 is highest where the broker has ten levels),
                `serializer`, `compression`, `headers`, `retry` (bool), `retry_policy` (mapping), `time_limit`,
                `soft_time_limit` (seconds), `ignore_result`, `add_to_parent`, `connection`, `group_id`,
                `reply_to`, …; any other becomes a message property.

        Raises:
            TypeError: the arguments do not fit the function (unless `typing=False`).
            ValueError: a time, limit or priority is not usable.
            kombu.exceptions.OperationalError: the broker could not be reached in time.
        """
        app = self.app
        if not app.finalized:
            app.finalize(auto=True)
        if self._checks_arguments(app):
            self.check_arguments(args or (), kwargs or {})
        if app.conf.task_always_eager:
            return cast(
                "AsyncResult[R]",
                self._apply_always_eager(
                    args, kwargs, task_id=task_id, link=link, link_error=link_error, **options
                ),
            )
        for option in _PUBLISH_OPTIONS:
            if option not in options:
                value = getattr(self, option)
                if value is not None:
                    options[option] = value
        soft, hard = options.get("soft_time_limit"), options.get("time_limit")
        if soft and hard and soft > hard:
            raise ValueError(f"soft_time_limit ({soft} s) must not be greater than time_limit ({hard} s)")
        if self.pydantic and options.get("serializer") != "pickle":
            from qcore.models import dump_arguments

            args, kwargs = dump_arguments(args or (), kwargs or {}, self.pydantic_dump_kwargs)
        shadow = shadow or self.shadow_name(args, kwargs, options)
        return cast(
            "AsyncResult[R]",
            app.caller.send(
                self.name,
                args,
                kwargs,
                task=self,
                task_id=task_id,
                producer=producer,
                link=link,
                link_error=link_error,
                shadow=shadow,
                **options,
            ),
        )

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` that does not block the event loop."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """`apply_async` that does not block the event loop.

        Sending happens in a worker thread, and calls that are awaited at the same time share their round trips
        (`qcore.async_calls`).
        """
        make = functools.partial(self.apply_async, args, kwargs, **options)
        return cast("AsyncResult[R]", await self.app.async_calls.send(make, options))

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Hook: the name of this call in logs and monitors; None for the task's own."""
        return None

    def _checks_arguments(self, app: Any) -> bool:
        return bool(self.typing if self.typing is not None else app.strict_typing)

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError, in Python's own words, when the body does not take these arguments."""
        check = self._argument_check
        if check is None:
            fun = getattr(self, "__wrapped_fun__", None)
            check = self._argument_check = (
                ArgumentCheck(self.run) if fun is None else ArgumentCheck(fun, bound=self.__bound_self__)
            )
        check(args, kwargs)

    # --- eager ---------------------------------------------------------------------------------

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run here, through the same steps as in a worker; returns when the task is over.

        Args:
            throw: raise the task's exception here; default `task_eager_propagates`.
        """
        return cast(
            "EagerResult[R]",
            self.app.run_eagerly(
                self, args or (), kwargs or {}, link=link, link_error=link_error,
                task_id=task_id or str(uuid4()), retries=retries, throw=throw, options=options,
            ),
        )  # fmt: skip

    def _apply_always_eager(self, args: Any, kwargs: Any, **options: Any) -> Any:
        """`task_always_eager`: arguments take the way through the serializer as they would on the wire."""
        codec = self.app.amqp.codec
        serializer = options.get("serializer") or self.serializer
        content_type, encoding, data = codec.encode((tuple(args or ()), dict(kwargs or {})), serializer)
        args, kwargs = codec.decode(data, content_type, encoding, accept=None)
        return self.apply(args, kwargs, **options)

    # --- retry, replace ------------------------------------------------------------------------

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Send the running task again, with the same id, to the queue that it came from.

        Args:
            args: other positional arguments for the next try.
            kwargs: other keyword arguments for the next try.
            exc: the exception to record; default the one being handled.
            throw: false returns the `Retry` instead of raising it.
            eta: time of the next try.
            countdown: seconds to the next try; default the back-off of the task when it has one, else
                `default_retry_delay`.
            max_retries: limit for this call; None takes the task's.

        Raises:
            Retry: always, unless `throw` is false.
            MaxRetriesExceededError: the limit is reached and there is no `exc`; else `exc` itself.
            Reject: the broker refused the new message.
        """
        request = self.request
        limit = self.max_retries if max_retries is None else max_retries
        current_exc = sys.exc_info()[1]
        if request.called_directly:
            raise_with = current_exc or exc
            if raise_with is not None:
                raise raise_with
            raise Retry("Task can be retried", None)
        retries = (request.retries or 0) + 1
        if eta is None and countdown is None:
            countdown = self._retry_delay(request.retries or 0)
        again = self.signature_from_request(
            request, args, kwargs, countdown=countdown, eta=eta, retries=retries, **options
        )
        if limit is not None and retries > limit:
            if exc is not None:
                raise exc
            raise self.MaxRetriesExceededError(
                f"Can't retry {self.name}[{request.id}] args:{again.args} kwargs:{again.kwargs}",
                task_args=again.args,
                task_kwargs=again.kwargs,
            )
        cause = exc or current_exc
        ret = Retry(exc=cause, when=eta or countdown, is_eager=bool(request.is_eager), sig=again)
        if request.is_eager:
            if throw:
                raise ret
            return ret
        try:
            again.apply_async()
        except Exception as failure:
            raise Reject(failure, requeue=False) from failure
        if throw:
            raise ret
        return ret

    def _retry_delay(self, retries: int) -> float:
        if self.retry_backoff:
            from qcore.retries import backoff_seconds

            factor = 1 if self.retry_backoff is True else self.retry_backoff
            return backoff_seconds(factor, retries, self.retry_backoff_max, jitter=self.retry_jitter)
        return self.default_retry_delay

    def signature_from_request(
        self,
        request: Any = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[R]:
        """A signature that continues the running call: same id, workflow and destination."""
        request = self.request if request is None else request
        merged = request.as_execution_options()
        info = request.delivery_info or {}
        if not {"queue", "exchange", "routing_key"} & set(options) and info and not request.is_eager:
            merged.update(_destination(info))
        if info.get("priority") is not None:
            merged["priority"] = info["priority"]
        merged.update(options)
        return signature(
            self.name,
            args=request.args if args is None else args,
            kwargs=request.kwargs if kwargs is None else kwargs,
            app=self.app,
            type=self,
            **{name: value for name, value in merged.items() if value is not None},
        )

    def replace(self, sig: Any) -> Any:
        """Let `sig` take the place of the running task: same id, chain, chord, group, links.

        Raises:
            Ignore: always; the running task stores no result.
            ImproperlyConfigured: `sig` is already part of a chord, or an empty workflow.
        """
        from qcore.canvas.replace import replacement

        if sig is None or not isinstance(sig, Signature):
            raise ImproperlyConfigured(f"replace() takes a signature, not {sig!r}")
        request = self.request
        replaced = replacement(self, request, sig)
        request.replaced = True
        if request.is_eager:
            return replaced.apply().get()
        replaced.delay()
        raise Ignore("Replaced by new task")

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Add a task to the header of the chord that the running task belongs to.

        Raises:
            ValueError: the running task is not part of a chord.
        """
        request = self.request
        if not request.chord:
            raise ValueError("Current task is not member of any chord")
        sig.set(group_id=request.group, chord=request.chord, root_id=request.root_id)
        sig.freeze()
        self.backend.add_to_chord(request.group)
        return sig.delay() if not lazy else sig

    # --- signatures ----------------------------------------------------------------------------

    def signature(self, args: Sequence[Any] | None = None, *starargs: Any, **starkwargs: Any) -> Signature[R]:
        """`signature(args, kwargs, **options)` of this task."""
        starkwargs.setdefault("app", self.app)
        return signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """A signature with these arguments; partial ones are completed by the caller."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """An immutable signature: it takes no results of others as arguments."""
        return self.signature(args, kwargs, immutable=True)

    def chunks(self, it: Any, n: int) -> Any:
        """Split a long list of argument tuples into tasks of `n` calls each."""
        return chunks(self.s(), it, n, app=self.app)

    def map(self, it: Any) -> Any:
        """One task that calls this one with each item."""
        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Any) -> Any:
        """One task that calls this one with each item unpacked."""
        return xstarmap(self.s(), it, app=self.app)

    # --- results and events --------------------------------------------------------------------

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:
        """The result of the call with that id."""
        return cast(
            "AsyncResult[R]",
            self.app.AsyncResult(task_id, backend=self.backend, task_name=self.name, **kwargs),
        )

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None) -> None:
        """Record a state of your own, such as `PROGRESS`, with any encodable `meta`."""
        request = self.request
        task_id = task_id or request.id
        if task_id is None:
            raise ValueError("update_state() needs a task id: the task does not run in a worker")
        record = ResultRecord.of(
            request, state or states.PENDING, meta, extended=self.app.conf.result_extended
        )
        self.backend.store(evolve(record, task_id=task_id, guarded=True))
        self.backend.flush()

    def send_event(self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any) -> None:
        """Send a custom event with this task's id."""
        self.app.amqp.event_dispatcher().send(type_, uuid=self.request.id, **fields)

    # --- hooks of task classes -----------------------------------------------------------------

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Hook: runs before the body."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Hook: the task succeeded and its result is stored."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Hook: the task will be tried again."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Hook: the task failed and its exception is stored."""

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Hook: last, after success or failure."""

    def on_replace(self, sig: Any) -> Any:
        """Hook: the task was replaced by `sig`; raises `Ignore`."""
        raise Ignore("Replaced by new task")

    # --- Python --------------------------------------------------------------------------------

    @property
    def __name__(self) -> str:
        fun: Any = getattr(self, "__wrapped_fun__", None)
        return str(getattr(fun, "__name__", type(self).__name__))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_task, (self.name, type(self).__module__ if not _fun(self) else _fun(self).__module__)

    def __repr__(self) -> str:
        return f"<@task: {self.name}>" if self.name else f"<unbound {type(self).__name__}>"

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A task defined in a class body is called without the instance, as a static method."""
        return self


class AsyncTask(Task[P, R]):
    """A task whose body is an `async def`: calling it directly gives the coroutine."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        """The coroutine of the body; awaited here and now, no message."""
        return self._await_body(args, kwargs)

    async def _await_body(self, args: Any, kwargs: Any) -> R:
        token = current.push_task(self, Context(args=args, kwargs=kwargs, task=self.name))
        try:
            return cast("R", await cast("Any", self.run)(*args, **kwargs))
        finally:
            current.pop_task(token)


def make_task(
    fun: Callable[..., Any], base: type[Task[..., Any]], app: Any, *, bind: bool, options: Mapping[str, Any]
) -> Task[..., Any]:
    """The task of `app` whose body is `fun`."""
    if base is Task and inspect.iscoroutinefunction(fun):
        base = AsyncTask
    task = base()
    functools.update_wrapper(task, fun, assigned=("__module__", "__doc__", "__qualname__", "__annotations__"))
    task.__dict__["__wrapped__"] = fun
    task.__dict__["__wrapped_fun__"] = fun
    task.__dict__["__bound_self__"] = bind
    task.__dict__["run"] = MethodType(fun, task) if bind else fun
    for option, value in options.items():
        if value is None and isinstance(_class_attribute(type(task), option), FromSettings):
            continue
        setattr(task, option, value)
    task._app = app
    if task.autoretry_for:
        add_autoretry(task)
    return task


def _fun(task: Task[..., Any]) -> Any:
    return getattr(task, "__wrapped_fun__", None)


def _class_attribute(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def _destination(info: Mapping[str, Any]) -> dict[str, Any]:
    exchange, routing_key = info.get("exchange"), info.get("routing_key")
    if not exchange and routing_key:
        return {"queue": routing_key}
    return {"exchange": exchange, "routing_key": routing_key}


def _unpickle_task(name: str, module: str | None) -> Any:
    app = current.get_current_app()
    if name not in app.tasks and module:
        from importlib import import_module

        import_module(module)
    return app.tasks[name]
