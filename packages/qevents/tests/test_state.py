"""The cluster state, fed with events as they come off the wire."""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcore import states
from qevents import State, Task, Worker
from qevents.state import heartbeat_expires

NODE = "q@here"


def event(type_: str, clock: int = 1, hostname: str = NODE, **fields: Any) -> dict[str, Any]:
    now = time.time()
    return {
        "type": type_,
        "hostname": hostname,
        "clock": clock,
        "timestamp": now,
        "local_received": now,
        "utcoffset": 0,
        "pid": 7,
        **fields,
    }


def received(uuid: str, clock: int = 1, **fields: Any) -> dict[str, Any]:
    given_fields = {"name": "add", "args": "(2,)", "kwargs": "{}", "retries": 0, "eta": None, "expires": None}
    return event("task-received", clock, uuid=uuid, **{**given_fields, **fields})


# -- workers


def test_a_worker_comes_lives_and_goes() -> None:
    state = State()
    (worker, created), subject = state.event(event("worker-online", freq=2.0, sw_ident="q"))  # type: ignore[misc]
    assert (worker.hostname, created, subject) == (NODE, True, "online")
    assert worker.alive
    assert worker.status_string == "ONLINE"
    assert worker.sw_ident == "q"
    state.event(event("worker-heartbeat", active=3, processed=10, loadavg=[1, 2, 3], freq=2.0))
    assert (worker.active, worker.processed, worker.loadavg) == (3, 10, [1, 2, 3])
    assert state.alive_workers() == [worker]
    state.event(event("worker-offline"))
    assert not worker.alive
    assert worker.status_string == "OFFLINE"
    assert state.workers == {NODE: worker}


def test_a_worker_is_alive_for_twice_its_interval() -> None:
    now = time.time()
    worker = Worker("w", freq=10, heartbeats=[now - 19])
    assert worker.alive
    assert worker.heartbeat_expires == pytest.approx(now + 1)
    worker.heartbeats[:] = [now - 21]
    assert not worker.alive
    assert heartbeat_expires(100) == 220
    assert heartbeat_expires(100, 2, 300) == 106


def test_a_worker_that_never_had_a_heartbeat_is_not_alive() -> None:
    assert not Worker("w").alive
    assert Worker("w").heartbeat_expires == 0.0


def test_heartbeats_count_by_time_of_receipt(caplog: pytest.LogCaptureFixture) -> None:
    state = State()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            state.event(event("worker-heartbeat", timestamp=time.time() - 3600))
    assert state.workers[NODE].alive
    assert len([r for r in caplog.records if "seconds apart" in r.message]) == 1, "warned once"


def test_small_drift_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    State().event(event("worker-heartbeat", timestamp=time.time() - 10))
    assert caplog.text == ""


def test_heartbeats_are_few_and_sorted() -> None:
    worker = Worker("w")
    for moment in (5.0, 3.0, 9.0, 7.0, 8.0, 1.0):
        worker.event("heartbeat", moment, moment)
    assert len(worker.heartbeats) == 4
    assert worker.heartbeats == sorted(worker.heartbeats)


def test_join_and_leave_are_told() -> None:
    seen: list[tuple[str, str | None]] = []
    state = State(
        on_node_join=lambda worker: seen.append(("join", worker.hostname)),
        on_node_leave=lambda worker: seen.append(("leave", worker.hostname)),
    )
    state.event(event("worker-heartbeat"))
    state.event(event("worker-heartbeat"))
    state.event(event("worker-online"))
    state.event(event("worker-offline"))
    assert seen == [("join", NODE), ("join", NODE), ("leave", NODE)]
    assert NODE not in state.workers


def test_unknown_fields_of_a_worker_become_attributes() -> None:
    state = State()
    state.event(event("worker-heartbeat", colour="red"))
    assert state.workers[NODE].colour == "red"  # type: ignore[attr-defined]


def test_none_does_not_replace_the_interval() -> None:
    state = State()
    state.event(event("worker-heartbeat", freq=None, clock=None))
    assert state.workers[NODE].freq == 60.0


def test_worker_update_and_identity() -> None:
    worker = Worker("w", pid=3)
    worker.update({"active": 1}, processed=2)
    assert (worker.active, worker.processed, worker.id) == (1, 2, "w.3")
    assert worker == Worker("w")
    assert worker != Worker("x")
    assert worker != "w"
    assert len({worker, Worker("w")}) == 1
    assert "w" in repr(worker)


# -- tasks


def test_the_life_of_a_task() -> None:
    state = State()
    state.event(event("task-sent", 1, "client", uuid="1", name="add", queue="celery", routing_key="celery"))
    task = state.tasks["1"]
    assert (task.state, task.client, task.origin, task.worker) == (states.PENDING, "client", "client", None)
    state.event(received("1", 2))
    assert task.state == states.RECEIVED
    assert state.task_count == 1
    state.event(event("task-started", 3, uuid="1"))
    assert task.state == states.STARTED
    assert not task.ready
    state.event(event("task-succeeded", 4, uuid="1", result="4", runtime=0.5))
    assert task.state == states.SUCCESS
    assert task.ready
    assert (task.name, task.args, task.result, task.runtime, task.clock) == ("add", "(2,)", "4", 0.5, 4)
    assert task.worker is state.workers[NODE]
    assert task.origin == f"{NODE}.7"
    assert None not in (task.sent, task.received, task.started, task.succeeded)
    assert state.event_count == 4
    assert state.workers[NODE].alive, "a task event is a sign of life"


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("sent", states.PENDING),
        ("received", states.RECEIVED),
        ("started", states.STARTED),
        ("failed", states.FAILURE),
        ("retried", states.RETRY),
        ("succeeded", states.SUCCESS),
        ("revoked", states.REVOKED),
        ("rejected", states.REJECTED),
        ("progress", "PROGRESS"),
    ],
)
def test_state_of_each_event(subject: str, expected: str) -> None:
    task = Task("1")
    task.event("retried", 1.0)  # whatever follows a retry counts
    task.event(subject, 2.0, 2.0, {"x": 1})
    assert (task.state, task.timestamp) == (expected, 2.0)


def test_a_late_received_only_completes_the_record() -> None:
    state = State()
    state.event(event("task-started", 2, "q@new", uuid="1", timestamp=20.0))
    state.event(received("1", 1, timestamp=10.0, hostname="q@new", root_id="0", worker_note="x"))
    task = state.tasks["1"]
    assert (task.state, task.timestamp, task.clock) == (states.STARTED, 20.0, 2)
    assert (task.name, task.root_id, task.received) == ("add", "0", 10.0)
    assert not hasattr(task, "worker_note")


def test_a_late_started_leaves_the_result_alone() -> None:
    state = State()
    state.event(event("task-succeeded", 3, uuid="1", result="4", timestamp=30.0))
    state.event(event("task-started", 2, uuid="1", timestamp=20.0))
    assert (state.tasks["1"].state, state.tasks["1"].timestamp) == (states.SUCCESS, 30.0)


def test_a_retried_task_starts_anew() -> None:
    state = State()
    for subject in ("received", "started", "retried", "received", "started"):
        state.event(event(f"task-{subject}", uuid="1"))
    assert state.tasks["1"].state == states.STARTED


@given(st.permutations(["sent", "received", "started", "succeeded"]))
def test_any_order_ends_in_the_final_state(order: list[str]) -> None:
    state = State()
    for subject in order:
        fields = {"name": "add"} if subject in ("sent", "received") else {}
        state.event(event(f"task-{subject}", uuid="1", **fields))
    task = state.tasks["1"]
    assert (task.state, task.name) == (states.SUCCESS, "add")
    assert state.tasks_by_type["add"] == {task}


def test_info_shows_what_is_known() -> None:
    state = State()
    state.event(received("1"))
    state.event(event("task-failed", 2, uuid="1", exception="KeyError('x')", traceback="…"))
    task = state.tasks["1"]
    assert task.info() == {"args": "(2,)", "kwargs": "{}", "retries": 0, "exception": "KeyError('x')"}
    assert task.info(["state"], extra=["name"]) == {"state": states.FAILURE, "name": "add"}


def test_relatives() -> None:
    state = State()
    state.event(received("child", root_id="root", parent_id="root"))
    child = state.tasks["child"]
    assert (child.parent, child.root) == (None, None)
    state.event(received("root", root_id="root"))
    root = state.tasks["root"]
    assert (child.parent, child.root, root.children) == (root, root, [child])
    assert root.as_dict()["children"] == ["child"]
    assert child.as_dict()["parent"] == child.as_dict()["root"] == "root"
    assert set(child.as_dict()) == set(Task._fields)


def test_a_task_without_a_cluster() -> None:
    task = Task("1", name="add", parent_id="0")
    assert (task.parent, task.root, task.children, task.id) == (None, None, [], "1")
    assert task == Task("1")
    assert task != Task("2")
    assert task != "1"
    assert "add" in repr(task)


# -- indexes, order, bounds


def test_tasks_by_time_goes_by_the_logical_clock() -> None:
    state = State()
    for uuid, clock in (("b", 5), ("a", 3), ("c", 9)):
        state.event(received(uuid, clock))
    assert [uuid for uuid, _ in state.tasks_by_time()] == ["c", "b", "a"]
    assert [uuid for uuid, _ in state.tasks_by_timestamp(reverse=False)] == ["a", "b", "c"]
    assert [uuid for uuid, _ in state.tasks_by_time(limit=1)] == ["c"]
    state.event(event("task-started", 10, uuid="a"))
    assert next(state.tasks_by_time())[0] == "a"
    assert [uuid for uuid, _ in state.itertasks(limit=2)] == ["b", "c"]


def test_order_can_be_rebuilt_after_changes_from_outside() -> None:
    state = State()
    for uuid, clock in (("a", 1), ("b", 2)):
        state.event(received(uuid, clock))
    assert next(state.tasks_by_time())[0] == "b"
    state.tasks["a"].clock = 3
    state.rebuild_taskheap()
    assert next(state.tasks_by_time())[0] == "a"


def test_tasks_by_type_and_worker() -> None:
    state = State()
    state.event(received("1", 1))
    state.event(received("2", 2, name="mul"))
    state.event(received("3", 3, hostname="q@there"))
    assert {task.uuid for task in state.tasks_by_type["add"]} == {"1", "3"}
    assert [uuid for uuid, _ in state.tasks_by_type("add")] == ["3", "1"]
    assert [uuid for uuid, _ in state.tasks_by_worker(NODE, limit=1)] == ["2"]
    assert state.tasks_by_type["unknown"] == set()
    assert "unknown" not in state.tasks_by_type
    assert state.task_types() == ["add", "mul"]


def test_a_task_moves_with_its_worker() -> None:
    state = State()
    state.event(received("1"))
    state.event(event("task-retried", 2, uuid="1"))
    state.event(received("1", 3, hostname="q@there"))
    assert state.tasks_by_worker[NODE] == set()
    assert {task.uuid for task in state.tasks_by_worker["q@there"]} == {"1"}


def test_the_least_recently_heard_of_task_is_dropped_everywhere() -> None:
    state = State(max_tasks_in_memory=3)
    for number in range(3):
        state.event(received(str(number), number, parent_id="p", name=f"t{number}"))
    state.event(event("task-started", 5, uuid="0"))
    state.event(received("3", 6))
    assert set(state.tasks) == {"0", "2", "3"}
    assert "t1" not in state.tasks_by_type
    assert {task.uuid for task in state.tasks_by_worker[NODE]} == {"0", "2", "3"}
    assert {task.uuid for task in state.children_of("p")} == {"0", "2"}
    assert {uuid for uuid, _ in state.tasks_by_time()} == {"0", "2", "3"}


def test_memory_stays_bounded() -> None:
    state = State(max_tasks_in_memory=10, max_workers_in_memory=2)
    for number in range(100):
        state.event(received(str(number), number, hostname=f"q@{number}", parent_id=str(number - 1)))
    assert (len(state.tasks), len(state.workers)) == (10, 2)
    assert len(state.tasks_by_worker) == 10
    assert len(state._children) == 10
    assert state.event_count == 100


# -- other events


def test_unknown_and_malformed_events_are_counted_and_nothing_else() -> None:
    state = State()
    for odd in (
        {"type": "custom-thing", "hostname": NODE},
        {"type": "nodash"},
        {"type": "worker-online"},
        {"type": "task-received", "uuid": None},
    ):
        assert state.event(odd) is None
    assert (state.event_count, len(state.workers), len(state.tasks)) == (4, 0, 0)


def test_a_handler_takes_its_group() -> None:
    state = State()
    state.handlers["custom"] = lambda subject, event: (subject, event["x"])
    assert state.event(event("custom-thing", x=1)) == (("thing", 1), "thing")


def test_the_callback_sees_every_event_and_may_ask_the_state() -> None:
    seen: list[tuple[str, int]] = []
    state = State(callback=lambda state, event: seen.append((event["type"], len(list(state.itertasks())))))
    state.event(received("1"))
    state.event(event("worker-online"))
    assert seen == [("task-received", 0), ("worker-online", 1)]


# -- clearing, freezing, pickling


def test_clear_keeps_unfinished_tasks() -> None:
    state = State()
    state.event(received("1"))
    state.event(event("task-succeeded", uuid="2", name="add"))
    state.clear()
    assert (set(state.tasks), state.event_count, state.task_count, len(state.workers)) == ({"1"}, 0, 0, 0)
    assert {task.uuid for task in state.tasks_by_type["add"]} == {"1"}
    state.clear_tasks(ready=False)
    assert not state.tasks
    assert not state.tasks_by_type


def test_freeze_while_keeps_events_out() -> None:
    state = State()
    state.event(received("1"))
    entered, leave = threading.Event(), threading.Event()

    def look() -> int:
        entered.set()
        leave.wait(10)
        return state.event_count

    counts: list[int] = []
    looker = threading.Thread(target=lambda: counts.append(state.freeze_while(look, clear_after=True)))
    looker.start()
    entered.wait(10)
    feeder = threading.Thread(target=state.event, args=(received("2"),))
    feeder.start()
    leave.set()
    looker.join()
    feeder.join()
    assert counts == [1]
    assert state.event_count == 1, "counted anew after the freeze"


def test_get_or_create() -> None:
    state = State()
    worker, created = state.get_or_create_worker("w", active=1)
    assert (worker.active, created) == (1, True)
    assert state.get_or_create_worker("w", active=2) == (worker, False)
    assert worker.active == 2
    task, created = state.get_or_create_task("1")
    assert created
    assert state.get_or_create_task("1") == (task, False)


def test_pickle_keeps_records_and_links() -> None:
    state = State(max_tasks_in_memory=50)
    state.event(event("worker-online", freq=2.0))
    state.event(received("1", 1, root_id="1"))
    state.event(received("2", 2, root_id="1", parent_id="1", extra="x"))
    copy: State = pickle.loads(pickle.dumps(state))
    assert (copy.event_count, copy.task_count, copy.max_tasks_in_memory) == (3, 2, 50)
    assert copy.tasks["2"].parent is copy.tasks["1"]
    assert copy.tasks["1"].children == [copy.tasks["2"]]
    assert copy.tasks["2"].extra == "x"  # type: ignore[attr-defined]
    assert copy.tasks["1"].worker is copy.workers[NODE]
    assert [uuid for uuid, _ in copy.tasks_by_type("add")] == ["2", "1"]
    assert copy.task_types() == ["add"]
    copy.event(event("task-started", 3, uuid="2"))
    assert copy.tasks["2"].state == states.STARTED


def test_single_records_pickle() -> None:
    task = pickle.loads(pickle.dumps(Task("1", name="add", state="SUCCESS", worker=Worker("w", freq=2.0))))
    assert (task.uuid, task.name, task.state, task.worker.freq) == ("1", "add", "SUCCESS", 2.0)


def test_subclasses_may_bring_their_own_records() -> None:
    class MyTask(Task):
        pass

    class MyState(State):
        task_class = MyTask

    state = MyState()
    state.event(received("1"))
    assert isinstance(state.tasks["1"], MyTask)
    assert repr(state) == "<State: events=1 tasks=1>"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sent", "received", "started", "succeeded", "failed", "retried", "revoked"]),
            st.integers(0, 5),
            st.integers(0, 2),
            st.integers(0, 9),
        ),
        max_size=60,
    )
)
def test_indexes_always_agree_with_the_tasks(steps: list[tuple[str, int, int, int]]) -> None:
    state = State(max_tasks_in_memory=4, max_workers_in_memory=2)
    for subject, number, node, clock in steps:
        fields = {"name": f"t{number % 2}"} if subject in ("sent", "received") else {}
        state.event(
            event(
                f"task-{subject}", clock, f"q@{node}", uuid=str(number), parent_id=str(number - 1), **fields
            )
        )
    tasks = set(state.tasks.values())
    named = {task for task in tasks if task.name is not None}
    assert set(itertools.chain.from_iterable(state.tasks_by_type.values())) == named
    assert all(task.name == name for name, found in state.tasks_by_type.items() for task in found)
    assert set(itertools.chain.from_iterable(state.tasks_by_worker.values())) == {
        t for t in tasks if t.worker
    }
    keys = [(task.clock, task.timestamp) for _, task in state.tasks_by_time(reverse=False)]
    assert keys == sorted(keys)
