"""The q command: run workers and beat, call tasks, inspect and control a cluster."""

__version__ = "26.1.0"
