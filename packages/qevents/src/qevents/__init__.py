"""What happens in a q cluster: event receiver, cluster state, cameras, dumper."""

from qevents.dumper import Dumper, JsonDumper, evdump
from qevents.receiver import EventReceiver
from qevents.snapshot import Polaroid, evcam
from qevents.state import State, Task, Worker

__all__ = [
    "Dumper",
    "EventReceiver",
    "JsonDumper",
    "Polaroid",
    "State",
    "Task",
    "Worker",
    "evcam",
    "evdump",
]

__version__ = "26.1.0"
