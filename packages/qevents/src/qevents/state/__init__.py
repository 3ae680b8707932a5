"""What the cluster looks like, put together from its events; usable without an app."""

from qevents.state.cluster import State
from qevents.state.task import Task
from qevents.state.worker import Worker, heartbeat_expires

__all__ = ["State", "Task", "Worker", "heartbeat_expires"]
