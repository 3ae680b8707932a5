"""`qcli control`: change workers while they run."""

from __future__ import annotations

from qcli.remote import remote_command
from qcli.remote_commands import CONTROL

control = remote_command("control", CONTROL, "Tell the workers: COMMAND is one of those below.")
