"""Event messages: what a task or worker tells whoever listens, and the dispatcher that sends it."""

from qcore.events.dispatcher import EventDispatcher
from qcore.events.message import event_exchange, group_of, make_event, routing_key_of

__all__ = [
    "EventDispatcher",
    "event_exchange",
    "group_of",
    "make_event",
    "routing_key_of",
]
