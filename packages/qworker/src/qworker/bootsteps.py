"""Boot steps: the parts of a worker, started in the order of what they require, stopped in reverse.

A `Blueprint` is a set of `Step` classes. `apply(parent)` makes the steps and lets each prepare the parent;
`start(parent)`, `stop(parent)` and the others then call the method of that name of every step. The steps may
be given anything as parent that has a list `steps`; nothing here knows what a worker is.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from threading import Event
from typing import Any, ClassVar, Protocol

from .stepgraph import BootstepError, StepGraph

logger = logging.getLogger(__name__)

RUN = 0x1
CLOSE = 0x2
TERMINATE = 0x3

_STATE_NAMES: Mapping[int | None, str] = {
    None: "initializing",
    RUN: "running",
    CLOSE: "closing",
    TERMINATE: "terminating",
}
_ACTIONS = ("start", "stop", "terminate", "shutdown", "close")


class Parent(Protocol):
    """What a blueprint needs of the object it boots."""

    steps: list[Any]


class StepType(type):
    """Type of the step classes; gives them the short form that is shown in sets, graphs and logs."""

    requires: Iterable[str | StepType]
    name: str
    label: str | None
    conditional: bool
    last: bool

    def __new__(mcs, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> StepType:
        attrs.setdefault("name", f"{attrs.get('__module__')}.{attrs.get('__qualname__', name)}")
        return super().__new__(mcs, name, bases, attrs)

    def __repr__(cls) -> str:
        return f"step:{cls.__module__}.{cls.__qualname__}{{{tuple(cls.requires)!r}}}"


class Step(metaclass=StepType):
    """One part. Subclasses may leave out everything, `super().__init__` included."""

    name: ClassVar[str]
    """Unique in its blueprint; the dotted path of the class unless set."""
    label: ClassVar[str | None] = None
    """Shown in place of the class name."""
    requires: ClassVar[Iterable[str | StepType]] = ()
    """Steps that must come before: classes, `"module:Class"`, or names of steps in the blueprint."""
    conditional: ClassVar[bool] = False
    """Whether the step may leave itself out; drawn differently in graphs."""
    last: ClassVar[bool] = False
    """Whether all other steps come before this one."""
    enabled: bool = True

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        """Prepare the parent; gets the parent's keyword arguments, as far as the signature names them."""

    @property
    def alias(self) -> str:
        return type(self).label or type(self).__name__

    def include_if(self, parent: Any) -> bool:
        """Whether the step takes part."""
        return self.enabled

    def create(self, parent: Any) -> Any:
        """Make what the step stands for; an object with `start` and `stop` is started and stopped for it."""

    def include(self, parent: Any) -> bool:
        """Take part, if the step wants to: called once, in boot order."""
        if not self.include_if(parent):
            return False
        created = self.create(parent)
        self._keep(created)
        if any(callable(getattr(self, action, None)) for action in _ACTIONS):
            parent.steps.append(self)
        return True

    def _keep(self, created: Any) -> None:
        """Nothing is delegated by a plain step."""

    def info(self, parent: Any) -> Mapping[str, Any] | None:
        """What the step adds to the statistics."""
        return None

    def __repr__(self) -> str:
        return f"<step: {self.alias}>"


class StartStopStep(Step):
    """A step that is started and stopped, itself or what `create` returned."""

    obj: Any = None

    def _keep(self, created: Any) -> None:
        # `return self` means "I am started myself", which needs no delegation.
        self.obj = None if created is self else created

    def include(self, parent: Any) -> bool:
        included = super().include(parent)
        if included and self.obj is None and not self._acts():
            parent.steps.remove(self)
        return included

    def _acts(self) -> bool:
        return any(
            getattr(type(self), action, None) is not getattr(StartStopStep, action, None)
            for action in _ACTIONS
        )

    def start(self, parent: Any) -> Any:
        return None if self.obj is None else self.obj.start()

    def stop(self, parent: Any) -> Any:
        return None if self.obj is None else self.obj.stop()

    def terminate(self, parent: Any) -> Any:
        """Stop without waiting; what knows no `terminate` is stopped."""
        if self.obj is not None:
            return getattr(self.obj, "terminate", self.obj.stop)()
        return self.stop(parent)

    def close(self, parent: Any) -> Any:
        """The end is near: take nothing new."""
        call = getattr(self.obj, "close", None)
        return call() if callable(call) else None


class ConsumerStep(StartStopStep):
    """A step that consumes messages of its own; define `get_consumers(channel)`.

    The parent has a `connection`; the step is started anew whenever there is a new one.
    """

    requires = ("qworker.consumer.connection:Connection",)
    consumers: list[Any] | None = None

    def get_consumers(self, channel: Any) -> Iterable[Any]:
        """The `kombu.Consumer` objects to start."""
        raise TypeError(
            f"{type(self).__name__} must define get_consumers(channel) and return kombu consumers"
        )

    def start(self, parent: Any) -> None:
        self.consumers = list(self.get_consumers(parent.connection.channel()))
        for consumer in self.consumers:
            consumer.consume()

    def stop(self, parent: Any) -> None:
        self._close_consumers(parent, cancel=True)

    def shutdown(self, parent: Any) -> None:
        self._close_consumers(parent, cancel=False)

    def _close_consumers(self, parent: Any, cancel: bool) -> None:
        consumers, self.consumers = self.consumers or [], None
        connection = parent.connection
        # The connection may be what has failed: there is nothing left to cancel then.
        gone: tuple[type[BaseException], ...] = (OSError,)
        if connection is not None:
            gone += tuple(connection.connection_errors) + tuple(connection.channel_errors)
        channels = {consumer.channel for consumer in consumers if consumer.channel is not None}
        if cancel:
            for consumer in consumers:
                with suppress(*gone):
                    consumer.cancel()
        for channel in channels:
            with suppress(*gone):
                channel.close()


class Blueprint:
    """A set of steps and the state they are in.

    Args:
        steps: Step classes besides `default_steps`, in any order.
        name: Shown in logs and graphs.
        provided: Step classes that run elsewhere already (in the parent's parent): a requirement of one of
        them
            is met, and no second instance is made.
        on_start, on_close, on_stopped: Called at these moments.
    """

    name: str | None = None
    default_steps: Iterable[str | StepType] = ()

    def __init__(
        self,
        steps: Iterable[str | StepType] = (),
        *,
        name: str | None = None,
        provided: Iterable[str | StepType] = (),
        on_start: Callable[[], object] | None = None,
        on_close: Callable[[], object] | None = None,
        on_stopped: Callable[[], object] | None = None,
    ) -> None:
        self.name = name or self.name or type(self).__name__
        self.state: int | None = None
        self.started = 0
        self.shutdown_complete = Event()
        self.order: list[Step] = []
        self.steps: dict[str, Step] = {}
        self.on_start = on_start
        self.on_close = on_close
        self.on_stopped = on_stopped
        extra = sorted((find_step(step) for step in steps), key=lambda step: step.name)
        self.types = _by_name([*map(find_step, self.default_steps), *extra])
        self._provided = {find_step(step).name for step in provided}
        self.graph = self._build()

    @property
    def alias(self) -> str:
        return str(self.name).rpartition(".")[2]

    # --- building ---------------------------------------------------------------------------------

    def _build(self) -> StepGraph:
        edges: dict[str, list[str]] = {}
        waiting = list(self.types)
        for name in waiting:
            edges[name] = []
            for requirement in self.types[name].requires:
                step = self._resolve(requirement, self.types[name])
                if step.name in self._provided:
                    continue
                if step.name not in self.types:
                    self.types[step.name] = step
                    waiting.append(step.name)
                edges[name].append(step.name)
        last = [name for name in edges if self.types[name].last]
        for name in last:
            edges[name] += [other for other in edges if other not in last and other not in edges[name]]
        graph = StepGraph(edges)
        graph.order()
        return graph

    def _resolve(self, requirement: str | StepType, wanting: StepType) -> StepType:
        if isinstance(requirement, str) and ":" not in requirement:
            for step in self.types.values():
                if requirement in (step.name, step.__name__):
                    return step
        try:
            return find_step(requirement)
        except BootstepError as error:
            raise BootstepError(f"{wanting.name} requires {requirement!r}: {error}") from error

    def to_dot(self) -> str:
        """The steps and their requirements as a Graphviz graph."""
        return self.graph.to_dot(
            self.alias,
            lambda name: self.types[name].label or self.types[name].__name__,
            lambda name: self.types[name].conditional,
        )

    def apply(self, parent: Parent, **kwargs: Any) -> Blueprint:
        """Make every step with `parent` and the keywords it knows, then include them in boot order."""
        if not hasattr(parent, "steps"):
            parent.steps = []
        self._debug("Preparing bootsteps.")
        self._debug("Building graph...")
        for name in self.graph.order():
            step = instantiate(self.types[name], parent, kwargs)
            self.order.append(step)
            self.steps[name] = step
        self._debug("New boot order: {%s}", ", ".join(step.alias for step in self.order))
        for step in self.order:
            step.include(parent)
        return self

    def __getitem__(self, name: str) -> Step:
        return self.steps[name]

    # --- running ----------------------------------------------------------------------------------

    def start(self, parent: Parent) -> None:
        """Start the steps in order; one that blocks is the last."""
        self.state = RUN
        if self.on_start is not None:
            self.on_start()
        for number, step in enumerate(list(parent.steps), start=1):
            self.started = number
            start = getattr(step, "start", None)
            if start is not None:
                self._debug("Starting %s", step.alias)
                start(parent)
                logger.debug("^-- substep ok")

    def human_state(self) -> str:
        return _STATE_NAMES[self.state]

    def info(self, parent: Parent) -> dict[str, Any]:
        """What all steps say about themselves, in one mapping."""
        facts: dict[str, Any] = {}
        for step in parent.steps:
            facts.update(step.info(parent) or {})
        return facts

    def close(self, parent: Parent) -> None:
        """Tell the steps that no more work is wanted."""
        if self.on_close is not None:
            self.on_close()
        self.send_all(parent, "close", "closing", reverse=False, propagate=False)

    def restart(self, parent: Parent, method: str = "stop", description: str = "restarting") -> None:
        """Stop every started step, so that `start` can be called again; errors are logged."""
        self.send_all(parent, method, description, propagate=False)
        self.started = 0

    def send_all(
        self,
        parent: Parent,
        method: str,
        description: str | None = None,
        *,
        reverse: bool = True,
        propagate: bool = True,
    ) -> None:
        """Call a method of every started step that has it, in reverse boot order unless told otherwise."""
        started = parent.steps[: self.started]
        for step in reversed(started) if reverse else list(started):
            call = _action(step, method)
            if call is None:
                continue
            self._debug("%s %s...", (description or method).capitalize(), step.alias)
            try:
                call(parent)
            except Exception:  # a step's own code: the others must be stopped all the same
                if propagate:
                    raise
                logger.exception("Error on %s %s; going on with the other steps", method, step.alias)

    def stop(self, parent: Parent, close: bool = True, terminate: bool = False) -> None:
        """Stop (or terminate) the started steps in reverse; of later calls only a terminating one acts."""
        wanted = TERMINATE if terminate else CLOSE
        if self.state in (wanted, TERMINATE):
            return
        first = self.state != CLOSE
        self.state = CLOSE
        if close and first:
            self.close(parent)
        self.state = wanted
        self.restart(parent, *(("terminate", "terminating") if terminate else ("stop", "stopping")))
        if self.on_stopped is not None:
            self.on_stopped()
        self.state = TERMINATE
        self.shutdown_complete.set()

    def shutdown(self, parent: Parent) -> None:
        """Call `shutdown` of every step that has it, in reverse boot order."""
        self.started = self.started or len(parent.steps)
        self.send_all(parent, "shutdown", "shutting down", propagate=False)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until `stop` has ended; False if `timeout` seconds pass first."""
        return self.shutdown_complete.wait(timeout)

    def _debug(self, message: str, *args: object) -> None:
        logger.debug("| %s: " + message, self.alias, *args)


def find_step(step: str | StepType) -> StepType:
    """The step class that is meant by `"module:Class"`; BootstepError if there is none."""
    if isinstance(step, StepType):
        return step
    if not isinstance(step, str):
        raise BootstepError(
            f"{step!r} is no boot step; add a subclass of qworker.bootsteps.Step, not an instance"
        )
    module, _, attribute = step.partition(":")
    if not attribute:
        raise BootstepError(f"no step of the blueprint is called {step!r}; write it as 'module:Class'")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BootstepError(f"there is no boot step {step!r} ({error})") from error
    if not isinstance(found, StepType):
        raise BootstepError(f"{step!r} is no boot step but {found!r}")
    return found


def instantiate(step_class: StepType, parent: Any, kwargs: Mapping[str, Any]) -> Step:
    """Make a step with those keywords that its `__init__` accepts."""
    parameters = inspect.signature(step_class).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = {parameter.name for parameter in parameters}
        kwargs = {name: value for name, value in kwargs.items() if name in known}
    step: Step = step_class(parent, **kwargs)
    return step


def _by_name(steps: Iterable[StepType]) -> dict[str, StepType]:
    found: dict[str, StepType] = {}
    for step in steps:
        if found.setdefault(step.name, step) is not step:
            raise BootstepError(f"two boot steps are called {step.name!r}; give one of them another name")
    return found


def _action(step: Any, method: str) -> Callable[[Any], object] | None:
    """The step's method; what cannot be terminated is stopped."""
    call = getattr(step, method, None)
    if call is None and method == "terminate":
        call = getattr(step, "stop", None)
    return call if callable(call) else None
