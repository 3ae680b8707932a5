"""Remote control: the commands a worker answers, and how to add your own."""

from qworker.remote import manage, query
from qworker.remote.registry import Command, ControlState, Panel, control_command, inspect_command, panel

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
