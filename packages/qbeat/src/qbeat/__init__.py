"""Periodic tasks of the q task queue: schedules, schedulers, the beat service."""

from qbeat.embedded import EmbeddedService
from qbeat.entries import from_config
from qbeat.entry import BeatLazyFunc, ScheduleEntry
from qbeat.errors import BrokerAwayError, SchedulingError
from qbeat.schedulers import PersistentScheduler, Scheduler
from qbeat.schedules import ScheduleState, clocked, crontab, schedule, solar
from qbeat.service import Service

__all__ = [
    "BeatLazyFunc",
    "BrokerAwayError",
    "EmbeddedService",
    "PersistentScheduler",
    "ScheduleEntry",
    "ScheduleState",
    "Scheduler",
    "SchedulingError",
    "Service",
    "clocked",
    "crontab",
    "from_config",
    "schedule",
    "solar",
]

__version__ = "26.1.0"
