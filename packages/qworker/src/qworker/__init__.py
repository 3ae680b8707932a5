"""The q worker: boot steps, consumer, pools, remote control."""

__version__ = "26.1.0"
