"""Remote control: the commands a worker answers, and how to add your own."""

from qworker.panel import Command, ControlState, Panel, control_command, inspect_command, panel
from qworker.remote import manage, query

__all__ = [
    "Command",
    "ControlState",
    "Panel",
    "control_command",
    "inspect_command",
    "manage",
    "panel",
    "query",
]
