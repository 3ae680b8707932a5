"""Periodic tasks of the q task queue: schedules, schedulers, the beat service."""

__version__ = "26.1.0"
