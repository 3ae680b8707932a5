"""`qcli inspect`: ask workers about their state; changes nothing."""

from __future__ import annotations

from qcli.remote import remote_command
from qcli.remote_commands import INSPECT

inspect = remote_command("inspect", INSPECT, "Ask the workers: COMMAND is one of those below.")
