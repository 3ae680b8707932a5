"""When to run: every so often, by the calendar, by the sun, or once.

Every schedule works without an app; `tz` and `nowfun` can be given, and an app fills in what is not.
"""

from qbeat.schedules.base import NEVER, BaseSchedule, ScheduleState
from qbeat.schedules.clocked import clocked
from qbeat.schedules.convert import from_dict, maybe_schedule, to_dict
from qbeat.schedules.cron import crontab
from qbeat.schedules.fields import crontab_parser
from qbeat.schedules.interval import schedule
from qbeat.schedules.solar import solar

__all__ = [
    "NEVER",
    "BaseSchedule",
    "ScheduleState",
    "clocked",
    "crontab",
    "crontab_parser",
    "from_dict",
    "maybe_schedule",
    "schedule",
    "solar",
    "to_dict",
]
