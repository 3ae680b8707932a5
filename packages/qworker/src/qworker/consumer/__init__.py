"""The consumer: connects to the broker, takes messages, answers commands. Restarted when the connection is lost."""

from qworker.consumer.agent import Agent
from qworker.consumer.connection import Connection
from qworker.consumer.consumer import Consumer
from qworker.consumer.control import Control
from qworker.consumer.events import Events
from qworker.consumer.gossip import Gossip
from qworker.consumer.heart import Heart
from qworker.consumer.loop import EventLoop
from qworker.consumer.mingle import Mingle
from qworker.consumer.tasks import Tasks

__all__ = [
    "Agent",
    "Connection",
    "Consumer",
    "Control",
    "EventLoop",
    "Events",
    "Gossip",
    "Heart",
    "Mingle",
    "Tasks",
]
