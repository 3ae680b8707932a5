"""Remote control: commands and queries to running workers, theirs and Celery's alike."""

from qcore.control.client import Control
from qcore.control.inspect import Inspect, flatten_replies
from qcore.control.mailbox import make_mailbox
from qcore.control.request import ControlRequest, Reply

__all__ = ["Control", "ControlRequest", "Inspect", "Reply", "flatten_replies", "make_mailbox"]
