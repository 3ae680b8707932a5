"""Apps, tasks, workflows and results of the q task queue, on Celery's wire protocol."""

__version__ = "26.1.0"
