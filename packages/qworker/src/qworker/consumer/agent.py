"""Step Agent: a supervising agent beside the consumer, named by the setting `worker_agent`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qworker import bootsteps
from qworker.strategy import load_class

if TYPE_CHECKING:
    from qworker.consumer.consumer import Consumer


class Agent(bootsteps.StartStopStep):
    """Starts `worker_agent(connection)`, when there is one."""

    conditional = True
    requires = ("qworker.consumer.connection:Connection",)

    def __init__(self, c: Consumer, **kwargs: Any) -> None:
        self.agent_class = c.app.conf.worker_agent
        self.enabled = self.agent_class is not None
        super().__init__(c, **kwargs)

    def create(self, c: Consumer) -> Any:
        """The agent; it has `start` and `stop`."""
        agent = load_class(self.agent_class, None)
        return agent(c.connection)
