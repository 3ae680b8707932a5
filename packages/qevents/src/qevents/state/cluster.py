"""The cluster: its workers and tasks, of bounded size, fed one event at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from qcore import states
from qevents.state.bounded import BoundedDict
from qevents.state.task import Task
from qevents.state.worker import Worker

logger = logging.getLogger(__name__)

Event = dict[str, Any]
Result = tuple[Any, str] | None
P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_MAX_WORKERS = 5_000
DEFAULT_MAX_TASKS = 10_000


class TaskIndex(dict[str, set[Task]]):
    """Tasks by a key: `index[key]` is a set; `index(key, limit, reverse)` yields `(uuid, task)` by time."""

    def __init__(self, in_order: Callable[..., Iterator[tuple[str, Task]]]) -> None:
        super().__init__()
        self._in_order = in_order

    def __missing__(self, key: str) -> set[Task]:
        return set()

    def __call__(
        self, key: str, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, Task]]:
        chosen = self[key]
        pairs = ((uuid, task) for uuid, task in self._in_order(reverse=reverse) if task in chosen)
        return islice(pairs, 0, limit)

    def add(self, key: str, task: Task) -> None:
        """Put `task` under `key`."""
        self.setdefault(key, set()).add(task)

    def discard(self, key: str | None, task: Task) -> None:
        """Take `task` away from `key`; an empty key goes too."""
        if key is not None and key in self:
            self[key].discard(task)
            if not self[key]:
                del self[key]


class State:
    """Workers and tasks of a cluster as far as events told of them.

    Feed it with `event`, from any thread. Iterating while events come in is safe with `tasks_by_time`,
    `itertasks` and `freeze_while`.

    Args:
        callback: Called as `callback(state, event)` before each event is taken in.
        max_workers_in_memory, max_tasks_in_memory: Bounds; the least recently heard of is dropped first.
        on_node_join: Called with a `Worker` that is new, or says that it is online.
        on_node_leave: Called with a `Worker` that says goodbye; the worker is then forgotten.

    Attributes:
        workers: Node name -> `Worker`.
        tasks: Id -> `Task`.
        tasks_by_type, tasks_by_worker: Task name or node name -> set of tasks.
        event_count: Number of events taken in since the start or the last `clear`.
        task_count: Number of tasks received by workers since then.
        handlers: Event group -> callable of `(subject, event)`, for groups of your own.
    """

    worker_class: type[Worker] = Worker
    task_class: type[Task] = Task

    def __init__(
        self,
        callback: Callable[[State, Event], object] | None = None,
        max_workers_in_memory: int = DEFAULT_MAX_WORKERS,
        max_tasks_in_memory: int = DEFAULT_MAX_TASKS,
        on_node_join: Callable[[Worker], object] | None = None,
        on_node_leave: Callable[[Worker], object] | None = None,
    ) -> None:
        self.event_callback = callback
        self.max_workers_in_memory = max_workers_in_memory
        self.max_tasks_in_memory = max_tasks_in_memory
        self.on_node_join = on_node_join
        self.on_node_leave = on_node_leave
        self.event_count = 0
        self.task_count = 0
        self.handlers: dict[str, Callable[[str, Event], Any]] = {}
        self._make_containers()

    def _make_containers(self) -> None:
        self.workers: BoundedDict[str, Worker] = BoundedDict(self.max_workers_in_memory)
        self.tasks: BoundedDict[str, Task] = BoundedDict(self.max_tasks_in_memory, self._forget)
        self.tasks_by_type = TaskIndex(self.tasks_by_time)
        self.tasks_by_worker = TaskIndex(self.tasks_by_time)
        self._children: dict[str, set[str]] = {}
        self._seen_types: set[str] = set()
        self._ordered: list[Task] | None = None
        # Reentrant, as callbacks run under it and may ask for what is in it.
        self._mutex = threading.RLock()

    # -- feeding

    def event(self, event: Event) -> Result:
        """Take in an event.

        Returns:
            `((worker or task, whether it is new), subject)`, what a handler returned in place of the pair,
            or None when the event is of an unknown group or malformed.
        """
        with self._mutex:
            self.event_count += 1
            if self.event_callback is not None:
                self.event_callback(self, event)
            group, _, subject = event["type"].partition("-")
            handler = self.handlers.get(group)
            if handler is not None:
                return handler(subject, event), subject
            if group == "worker" and event.get("hostname"):
                return self._worker_event(subject, event), subject
            if group == "task" and event.get("uuid"):
                return self._task_event(subject, event), subject
            return None

    def _worker_event(self, subject: str, event: Event) -> tuple[Worker, bool]:
        is_offline = subject == "offline"
        hostname = event["hostname"]
        worker = self.workers.get(hostname)
        created = worker is None and not is_offline
        if worker is None:
            worker = self.worker_class(hostname)
        if is_offline:
            worker.event(subject, event.get("timestamp"), event.get("local_received"), event)
            if self.on_node_leave is not None:
                self.on_node_leave(worker)
                self.workers.pop(hostname, None)
            return worker, False
        self._keep_worker(hostname, worker)
        received = event.get("local_received") or event.get("timestamp")
        worker.event(subject, event.get("timestamp"), received, event)
        if self.on_node_join is not None and (created or subject == "online"):
            self.on_node_join(worker)
        return worker, created

    def _keep_worker(self, hostname: str, worker: Worker) -> None:
        self.workers[hostname] = worker
        self.workers.touch(hostname)

    def _task_event(self, subject: str, event: Event) -> tuple[Task, bool]:
        uuid, hostname = event["uuid"], event.get("hostname")
        task, created = self.get_or_create_task(uuid)
        self.tasks.touch(uuid)
        name, parent_id = task.name, task.parent_id
        if subject == "sent":
            task.client = hostname
        elif hostname is not None:
            self._assign(task, hostname, event)
        if subject == "received":
            self.task_count += 1
        task.event(subject, event.get("timestamp"), event.get("local_received"), event)
        if task.name != name and task.name is not None:
            self.tasks_by_type.discard(name, task)
            self.tasks_by_type.add(task.name, task)
            self._seen_types.add(task.name)
        if task.parent_id != parent_id and task.parent_id is not None:
            self._children.setdefault(task.parent_id, set()).add(uuid)
        self._ordered = None
        return task, created

    def _assign(self, task: Task, hostname: str, event: Event) -> None:
        worker = self.workers.get(hostname)
        if worker is None:
            worker = self.worker_class(hostname, pid=event.get("pid"))
        self._keep_worker(hostname, worker)
        worker.event(None, event.get("timestamp"), event.get("local_received"))
        if task.worker is not worker:
            if task.worker is not None:
                self.tasks_by_worker.discard(task.worker.hostname, task)
            task.worker = worker
            self.tasks_by_worker.add(hostname, task)

    def _forget(self, task: Task) -> None:
        self.tasks_by_type.discard(task.name, task)
        if task.worker is not None:
            self.tasks_by_worker.discard(task.worker.hostname, task)
        siblings = self._children.get(task.parent_id) if task.parent_id is not None else None
        if siblings is not None and task.uuid is not None:
            siblings.discard(task.uuid)
            if not siblings and task.parent_id is not None:
                del self._children[task.parent_id]

    # -- asking

    def get_or_create_worker(self, hostname: str, **fields: Any) -> tuple[Worker, bool]:
        """The worker, and whether it is new; `fields` are set on it."""
        with self._mutex:
            worker = self.workers.get(hostname)
            created = worker is None
            if worker is None:
                worker = self.workers[hostname] = self.worker_class(hostname)
            worker.update(fields)
            return worker, created

    def get_or_create_task(self, uuid: str) -> tuple[Task, bool]:
        """The task, and whether it is new."""
        with self._mutex:
            task = self.tasks.get(uuid)
            if task is not None:
                return task, False
            task = self.tasks[uuid] = self.task_class(uuid, cluster_state=self)
            self._ordered = None
            return task, True

    def get_task(self, uuid: str | None) -> Task | None:
        """The task, when it is in memory."""
        return self.tasks.get(uuid) if uuid is not None else None

    def children_of(self, uuid: str | None) -> list[Task]:
        """The tasks in memory that this one sent."""
        with self._mutex:
            ids = self._children.get(uuid, ()) if uuid is not None else ()
            return [task for child in ids if (task := self.tasks.get(child)) is not None]

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, Task]]:
        """`(uuid, task)` pairs, the least recently heard of first."""
        with self._mutex:
            return iter(list(islice(self.tasks.items(), 0, limit)))

    def tasks_by_time(self, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, Task]]:
        """`(uuid, task)` pairs by clock and time of their last event; latest first unless `reverse=False`."""
        with self._mutex:
            if self._ordered is None:
                self._ordered = sorted(self.tasks.values(), key=_time_key)
            ordered = self._ordered
        chosen = islice(reversed(ordered) if reverse else iter(ordered), 0, limit)
        return ((task.uuid or "", task) for task in chosen)

    tasks_by_timestamp = tasks_by_time

    def task_types(self) -> list[str]:
        """Names of all tasks ever seen, sorted."""
        return sorted(self._seen_types)

    def alive_workers(self) -> list[Worker]:
        """The workers whose last heartbeat is recent enough."""
        with self._mutex:
            return [worker for worker in self.workers.values() if worker.alive]

    # -- clearing

    def freeze_while(self, fun: Callable[..., R], *args: Any, clear_after: bool = False, **kwargs: Any) -> R:
        """Call `fun` while no event is taken in; with `clear_after`, forget all that is over afterwards."""
        with self._mutex:
            try:
                return fun(*args, **kwargs)
            finally:
                if clear_after:
                    self.clear()

    def clear(self, ready: bool = True) -> None:
        """Forget the workers, the counts, and the tasks that are over (all tasks when `ready` is false)."""
        with self._mutex:
            self.workers.clear()
            self.clear_tasks(ready)
            self.event_count = 0
            self.task_count = 0

    def clear_tasks(self, ready: bool = True) -> None:
        """Forget the tasks that are over (all tasks when `ready` is false)."""
        with self._mutex:
            over = [task for task in self.tasks.values() if not ready or task.state in states.READY_STATES]
            for task in over:
                if task.uuid is not None:
                    del self.tasks[task.uuid]
                self._forget(task)
            self._ordered = None

    def rebuild_taskheap(self) -> None:
        """Put the tasks in order anew, after their attributes were changed from outside."""
        with self._mutex:
            self._ordered = None

    def __repr__(self) -> str:
        return f"<State: events={self.event_count} tasks={self.task_count}>"

    # -- pickling: records and settings; indexes and lock are made anew

    def __getstate__(self) -> dict[str, Any]:
        with self._mutex:
            kept = {name: value for name, value in vars(self).items() if name not in _REBUILT}
            return kept | {
                "workers": list(self.workers.values()),
                "tasks": list(self.tasks.values()),
                "seen_types": sorted(self._seen_types),
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        workers, tasks = state.pop("workers"), state.pop("tasks")
        seen_types = state.pop("seen_types")
        self.__dict__.update(state)
        self._make_containers()
        self._seen_types.update(seen_types)
        for worker in workers:
            self.workers[worker.hostname] = worker
        for task in tasks:
            self._restore(task)

    def _restore(self, task: Task) -> None:
        task.cluster_state = self
        self.tasks[task.uuid or ""] = task
        if task.name is not None:
            self.tasks_by_type.add(task.name, task)
        if task.worker is not None and task.worker.hostname is not None:
            # Workers were pickled on their own; a task must point to the record that events update.
            task.worker = self.workers.get(task.worker.hostname, task.worker)
            self.tasks_by_worker.add(task.worker.hostname or "", task)
        if task.parent_id is not None:
            self._children.setdefault(task.parent_id, set()).add(task.uuid or "")


_REBUILT = frozenset(
    {
        "workers",
        "tasks",
        "tasks_by_type",
        "tasks_by_worker",
        "_children",
        "_seen_types",
        "_ordered",
        "_mutex",
    }
)


def _time_key(task: Task) -> tuple[int, float, str]:
    return task.clock or 0, task.timestamp or 0.0, task.uuid or ""
