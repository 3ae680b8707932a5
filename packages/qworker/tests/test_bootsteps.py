"""Boot steps: building, order, life cycle, the documented log lines."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from qworker import bootsteps
from qworker.bootsteps import Blueprint, ConsumerStep, StartStopStep, Step
from qworker.stepgraph import BootstepError


class Boot:
    """A parent that notes what its steps do."""

    def __init__(self, blueprint: Blueprint, **kwargs: Any) -> None:
        self.steps: list[Any] = []
        self.notes: list[str] = []
        self.blueprint = blueprint
        blueprint.apply(self, **kwargs)

    def __repr__(self) -> str:
        return f"<Boot: {self.blueprint.human_state()}>"


class Noting(StartStopStep):
    def start(self, parent: Any) -> None:
        parent.notes.append(f"start {self.alias}")

    def stop(self, parent: Any) -> None:
        parent.notes.append(f"stop {self.alias}")


class Hub(Noting):
    pass


class Pool(Noting):
    requires = (Hub,)


class Tasks(Noting):
    requires = {"Pool"}
    label = "tasks of mine"


def order(blueprint: Blueprint) -> list[str]:
    return [name.rpartition(".")[2] for name in blueprint.graph.order()]


# --- building -----------------------------------------------------------------------------------


def test_every_step_comes_after_what_it_requires():
    assert order(Blueprint([Tasks, Pool, Hub])) == ["Hub", "Pool", "Tasks"]


def test_steps_without_requirements_keep_the_order_of_the_defaults():
    class Print(Blueprint):
        default_steps = (Tasks, Hub, Pool)

    assert order(Print()) == ["Hub", "Pool", "Tasks"]


def test_the_order_in_which_steps_were_added_does_not_matter():
    class A(Step):
        pass

    class B(Step):
        pass

    assert order(Blueprint([A, B])) == order(Blueprint([B, A]))


def test_a_required_step_is_added_by_itself():
    assert order(Blueprint([Pool])) == ["Hub", "Pool"]


def test_a_requirement_may_be_a_path(monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("steps_of_mine")
    module.Hub = Hub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "steps_of_mine", module)

    class Late(Step):
        requires = {"steps_of_mine:Hub"}

    assert order(Blueprint([Late])) == ["Hub", "Late"]


def test_the_last_step_comes_last():
    class Final(Step):
        last = True

    class Z(Step):
        pass

    assert order(Blueprint([Final, Z, Hub]))[-1] == "Final"


def test_what_runs_elsewhere_is_not_made_again():
    blueprint = Blueprint([Pool], provided=[Hub])
    assert order(blueprint) == ["Pool"]


def test_a_circle_is_shown():
    class Hen(Step):
        requires = ("Egg",)

    class Egg(Step):
        requires = (Hen,)

    with pytest.raises(BootstepError, match=r"require each other: .*Egg -> .*Hen -> .*Egg"):
        Blueprint([Hen, Egg])


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ("no.such.module:Step", "no boot step 'no.such.module:Step'"),
        ("logging:NoSuchStep", "no boot step 'logging:NoSuchStep'"),
        ("logging:Logger", "is no boot step but"),
        ("Nobody", "write it as 'module:Class'"),
    ],
)
def test_an_unknown_requirement_names_who_wants_it(requirement: str, reason: str):
    class Wanting(Step):
        requires = (requirement,)

    with pytest.raises(BootstepError, match=f"Wanting requires '{requirement}'.*{reason}"):
        Blueprint([Wanting])


def test_an_instance_is_refused():
    with pytest.raises(BootstepError, match="not an instance"):
        Blueprint([Hub(None)])  # type: ignore[list-item]


def test_two_steps_of_one_name_are_refused():
    class One(Step):
        name = "same"

    class Two(Step):
        name = "same"

    with pytest.raises(BootstepError, match="two boot steps are called 'same'"):
        Blueprint([One, Two])


def test_a_set_of_step_classes_is_readable():
    class StepB(Step):
        pass

    StepB.__module__, StepB.__qualname__ = "proj", "StepB"
    assert repr({StepB}) == "{step:proj.StepB{()}}"


def test_the_graph_as_dot():
    class Maybe(Step):
        conditional = True
        requires = (Hub,)

    dot = Blueprint([Maybe, Tasks, Pool], name="Worker").to_dot()
    assert dot.startswith('digraph "Worker" {')
    assert '[label="tasks of mine"]' in dot
    assert '[label="Maybe", style="rounded,dashed"]' in dot
    assert f'"{Pool.name}" -> "{Hub.name}";' in dot


# --- making steps -------------------------------------------------------------------------------


def test_init_gets_the_arguments_that_it_names_and_no_others():
    class Narrow(Step):
        def __init__(self, parent: Any, deadlock_timeout: int = 3600) -> None:
            self.timeout = deadlock_timeout

    class Wide(Step):
        def __init__(self, parent: Any, enable_my_option: bool = False, **options: Any) -> None:
            super().__init__(parent, **options)
            self.rest = options

    blueprint = Blueprint([Narrow, Wide])
    Boot(blueprint, enable_my_option=True, deadlock_timeout=5)
    assert blueprint[Narrow.name].timeout == 5  # type: ignore[attr-defined]
    assert blueprint[Wide.name].rest == {"deadlock_timeout": 5}  # type: ignore[attr-defined]
    assert Boot(Blueprint([Narrow]), other=1).blueprint[Narrow.name].timeout == 3600  # type: ignore[attr-defined]


def test_init_may_prepare_the_parent_and_forget_super():
    class Preparing(Step):
        def __init__(self, parent: Any, **kwargs: Any) -> None:
            parent.prepared = kwargs

    assert Boot(Blueprint([Preparing]), a=1).prepared == {"a": 1}  # type: ignore[attr-defined]


def test_a_step_that_is_not_enabled_takes_no_part():
    class Off(Noting):
        def __init__(self, parent: Any, **kwargs: Any) -> None:
            self.enabled = False

        def create(self, parent: Any) -> None:
            raise AssertionError("not to be made")

    class Never(Noting):
        def include_if(self, parent: Any) -> bool:
            return False

    assert Boot(Blueprint([Off, Never])).steps == []


def test_the_same_class_in_two_blueprints_gives_two_steps():
    first, second = Boot(Blueprint([Hub])), Boot(Blueprint([Hub]))
    assert first.steps[0] is not second.steps[0]


# --- life ---------------------------------------------------------------------------------------


def test_start_in_order_stop_in_reverse():
    boot = Boot(Blueprint([Tasks, Pool, Hub]))
    boot.blueprint.start(boot)
    boot.blueprint.stop(boot)
    assert boot.notes == [
        "start Hub",
        "start Pool",
        "start tasks of mine",
        "stop tasks of mine",
        "stop Pool",
        "stop Hub",
    ]


def test_what_create_returns_is_started_and_stopped():
    calls: list[str] = []

    class Delegating(StartStopStep):
        def create(self, parent: Any) -> Any:
            return SimpleNamespace(start=lambda: calls.append("start"), stop=lambda: calls.append("stop"))

    boot = Boot(Blueprint([Delegating]))
    boot.blueprint.start(boot)
    boot.blueprint.stop(boot)
    assert calls == ["start", "stop"]


def test_create_may_return_the_step_itself():
    class Itself(Noting):
        def create(self, parent: Any) -> Any:
            return self

    boot = Boot(Blueprint([Itself]))
    boot.blueprint.start(boot)
    boot.blueprint.stop(boot)
    assert boot.notes == ["start Itself", "stop Itself"]


def test_a_plain_step_with_methods_is_started_and_stopped_too():
    class Info(Step):
        def start(self, parent: Any) -> None:
            parent.notes.append(f"{parent!r} is starting")

        def stop(self, parent: Any) -> None:
            parent.notes.append(f"{parent!r} is stopping")

        def shutdown(self, parent: Any) -> None:
            parent.notes.append(f"{parent!r} is shutting down")

    boot = Boot(Blueprint([Info]))
    assert repr(boot) == "<Boot: initializing>"
    boot.blueprint.start(boot)
    boot.blueprint.stop(boot)
    boot.blueprint.shutdown(boot)
    assert boot.notes == [
        "<Boot: running> is starting",
        "<Boot: closing> is stopping",
        "<Boot: terminating> is shutting down",
    ]


def test_terminate_calls_terminate_or_else_stop():
    class Hard(Noting):
        def terminate(self, parent: Any) -> None:
            parent.notes.append("terminate Hard")

    boot = Boot(Blueprint([Hard, Hub]))
    boot.blueprint.start(boot)
    boot.notes.clear()
    boot.blueprint.stop(boot, terminate=True)
    assert sorted(boot.notes) == ["stop Hub", "terminate Hard"]


def test_a_restart_stops_every_step_and_start_begins_anew():
    boot = Boot(Blueprint([Hub]))
    boot.blueprint.start(boot)
    boot.blueprint.restart(boot)
    assert boot.blueprint.human_state() == "running"
    boot.blueprint.start(boot)
    assert boot.notes == ["start Hub", "stop Hub", "start Hub"]


def test_only_steps_that_were_started_are_stopped():
    class Failing(Noting):
        requires = (Hub,)

        def start(self, parent: Any) -> None:
            raise OSError("no luck")

    class After(Noting):
        requires = (Failing,)

    boot = Boot(Blueprint([After]))
    with pytest.raises(OSError, match="no luck"):
        boot.blueprint.start(boot)
    boot.blueprint.stop(boot)
    assert boot.notes == ["start Hub", "stop Failing", "stop Hub"]


def test_an_error_in_one_stop_does_not_keep_the_others_from_stopping(caplog: pytest.LogCaptureFixture):
    class Failing(Noting):
        requires = (Hub,)

        def stop(self, parent: Any) -> None:
            raise OSError("no luck")

    boot = Boot(Blueprint([Failing]))
    boot.blueprint.start(boot)
    boot.blueprint.stop(boot)
    assert boot.notes[-1] == "stop Hub"
    assert "Error on stop Failing" in caplog.text


def test_stop_happens_once():
    boot = Boot(Blueprint([Hub]))
    boot.blueprint.start(boot)
    boot.blueprint.stop(boot)
    boot.blueprint.stop(boot)
    boot.blueprint.stop(boot, terminate=True)
    assert boot.notes == ["start Hub", "stop Hub"]


def test_close_is_told_in_boot_order_before_anything_stops():
    class Closing(Noting):
        def close(self, parent: Any) -> None:
            parent.notes.append("close Closing")

    boot = Boot(Blueprint([Closing, Hub]))
    boot.blueprint.start(boot)
    boot.notes.clear()
    boot.blueprint.stop(boot)
    assert boot.notes[0] == "close Closing"


def test_the_moments_are_announced():
    moments: list[str] = []
    blueprint = Blueprint(
        [Hub],
        on_start=lambda: moments.append("start"),
        on_close=lambda: moments.append("close"),
        on_stopped=lambda: moments.append("stopped"),
    )
    boot = Boot(blueprint)
    assert not blueprint.join(0)
    blueprint.start(boot)
    blueprint.stop(boot)
    assert moments == ["start", "close", "stopped"]
    assert blueprint.join(0)


def test_states_have_their_numbers_and_names():
    blueprint = Blueprint()
    names = []
    for state in (None, bootsteps.RUN, bootsteps.CLOSE, bootsteps.TERMINATE):
        blueprint.state = state
        names.append(blueprint.human_state())
    assert names == ["initializing", "running", "closing", "terminating"]


def test_info_is_collected_from_all_steps():
    class One(Noting):
        def info(self, parent: Any) -> dict[str, Any]:
            return {"one": 1}

    class Two(Noting):
        def info(self, parent: Any) -> dict[str, Any]:
            return {"two": 2}

    boot = Boot(Blueprint([One, Two, Hub]))
    assert boot.blueprint.info(boot) == {"one": 1, "two": 2}


# --- log ----------------------------------------------------------------------------------------


def test_the_documented_lines(caplog: pytest.LogCaptureFixture):
    class Quiet(Step):
        requires = (Hub,)

    class QuietToo(StartStopStep):
        requires = (Hub,)

    caplog.set_level(logging.DEBUG, "qworker.bootsteps")
    boot = Boot(Blueprint([Hub, Quiet, QuietToo, Tasks, Pool], name="Worker"))
    boot.blueprint.start(boot)
    assert [record.getMessage() for record in caplog.records] == [
        "| Worker: Preparing bootsteps.",
        "| Worker: Building graph...",
        "| Worker: New boot order: {Hub, Pool, tasks of mine, Quiet, QuietToo}",
        "| Worker: Starting Hub",
        "^-- substep ok",
        "| Worker: Starting Pool",
        "^-- substep ok",
        "| Worker: Starting tasks of mine",
        "^-- substep ok",
    ]
    assert {record.levelname for record in caplog.records} == {"DEBUG"}


# --- consumers ----------------------------------------------------------------------------------


@pytest.fixture
def consumer_step(monkeypatch: pytest.MonkeyPatch) -> type[ConsumerStep]:
    from kombu import Consumer, Queue

    class Mine(ConsumerStep):
        requires = ()

        def get_consumers(self, channel: Any) -> list[Any]:
            self.got: list[Any] = []
            return [Consumer(channel, [Queue("mine")], callbacks=[self.on_message], accept=["json"])]

        def on_message(self, body: Any, message: Any) -> None:
            self.got.append(body)
            message.ack()

    return Mine


def test_a_consumer_step_consumes_anew_after_each_connection(consumer_step: type[ConsumerStep]):
    from kombu import Connection

    boot = Boot(Blueprint([consumer_step]))
    for body in ("first", "second"):
        with Connection("memory://bootsteps") as connection:
            boot.connection = connection  # type: ignore[attr-defined]
            boot.blueprint.start(boot)
            connection.SimpleQueue("mine").put(body, serializer="json")
            connection.drain_events(timeout=5)
            assert boot.steps[0].got == [body]
            consumers = boot.steps[0].consumers
            boot.blueprint.restart(boot)
            assert boot.steps[0].consumers is None
            assert all(not consumer.channel.connection for consumer in consumers)


def test_a_consumer_step_stops_although_the_connection_is_gone(consumer_step: type[ConsumerStep]):
    from kombu import Connection

    boot = Boot(Blueprint([consumer_step]))
    connection = Connection("memory://bootsteps-gone")
    boot.connection = connection  # type: ignore[attr-defined]
    boot.blueprint.start(boot)
    connection.close()
    boot.blueprint.stop(boot)
    assert boot.steps[0].consumers is None


def test_a_consumer_step_without_consumers_says_what_is_missing():
    class Lazy(ConsumerStep):
        requires = ()

    boot = Boot(Blueprint([Lazy]))
    boot.connection = SimpleNamespace(channel=lambda: None)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Lazy must define get_consumers\(channel\)"):
        boot.blueprint.start(boot)
