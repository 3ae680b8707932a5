"""Schedulers: they hold the entries, tell which are due, and send them."""

from qbeat.schedulers.base import Scheduler
from qbeat.schedulers.load import load_scheduler
from qbeat.schedulers.persistent import PersistentScheduler, RunStore
from qbeat.schedulers.state_file import SavedRun, StateFile

__all__ = ["PersistentScheduler", "RunStore", "SavedRun", "Scheduler", "StateFile", "load_scheduler"]
