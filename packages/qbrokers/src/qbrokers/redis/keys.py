"""Names of everything the Redis transport keeps on the server.

Queues, bindings, channels and the two tables of unacknowledged messages are laid out as kombu's own Redis
transport lays them out, so both can work on the same queues. What is ours alone starts with `_qbrokers.`.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

RESERVED_PREFIXES = ("_kombu.binding", "_qbrokers.")
"""What the names of tables begin with."""


class Keys:
    """Names under one prefix.

    Args:
        prefix: `global_keyprefix`; stands before every name, channels included.
        separator: Stands between a queue's name and its priority step, and between the parts of a binding.
        steps: Priorities that have a list of their own, ascending. The first is served first and its list
            bears the plain name of the queue.
        unacked: Name of the hash of delivered messages.
        unacked_index: Name of the sorted set of their delivery times.
        fanout_prefix: What stands before an exchange's name in a channel, `/0.` for database 0.
        fanout_patterns: Whether the routing key is part of the channel.
    """

    def __init__(
        self,
        prefix: str = "",
        separator: str = "\x06\x16",
        steps: Sequence[int] = (0, 3, 6, 9),
        *,
        unacked: str = "unacked",
        unacked_index: str = "unacked_index",
        fanout_prefix: str = "",
        fanout_patterns: bool = True,
    ) -> None:
        if not steps or list(steps) != sorted(set(steps)):
            raise ValueError(f"priority_steps must be ascending numbers without repetition, not {steps!r}")
        self.prefix = prefix
        self.separator = separator
        self.steps = tuple(steps)
        self._unacked = unacked
        self._unacked_index = unacked_index
        self._fanout_prefix = fanout_prefix
        self._fanout_patterns = fanout_patterns

    # -- queues

    def group(self, queue: str) -> str:
        """The set of books a queue belongs to; the queues of one group can be claimed together."""
        return ""

    def queue(self, queue: str) -> str:
        """The list that holds the messages of the first step."""
        return self.prefix + queue

    def step(self, priority: int) -> int:
        """The largest step that is not above a wire priority (0 is served first)."""
        return self.steps[max(0, bisect(self.steps, priority) - 1)]

    def list_of_step(self, queue: str, step: int) -> str:
        return f"{self.queue(queue)}{self.separator}{step}" if step else self.queue(queue)

    def list_for(self, queue: str, priority: int) -> str:
        """The list that takes a message of this wire priority."""
        return self.list_of_step(queue, self.step(priority))

    def lists(self, queue: str) -> list[str]:
        """All lists of a queue in serving order."""
        return [self.list_of_step(queue, step) for step in self.steps]

    def delayed(self, queue: str) -> str:
        """Sorted set of the messages that are not due: member `<step>:<envelope>`, score epoch ms."""
        return f"{self.prefix}_qbrokers.delayed.{queue}"

    def dead(self, queue: str) -> str:
        """List of the messages put aside, an ordinary queue named `<queue>.dead`."""
        return self.queue(f"{queue}.dead")

    # -- books

    def unacked(self, group: str) -> str:
        return self.prefix + self._unacked

    def unacked_index(self, group: str) -> str:
        return self.prefix + self._unacked_index

    def owners(self, group: str) -> str:
        """Sorted set: owner -> end of its lease, epoch ms."""
        return f"{self.prefix}_qbrokers.owners"

    def fence(self, group: str, owner: str) -> str:
        """Exists when claims of this owner must be refused."""
        return f"{self.prefix}_qbrokers.fence.{owner}"

    # -- exchanges

    def binding(self, exchange: str) -> str:
        return f"{self.prefix}_kombu.binding.{exchange}"

    def permanent_binding(self, exchange: str) -> str:
        return f"{self.prefix}_kombu.binding_permanent.{exchange}"

    def exchange_group(self, exchange: str) -> str:
        """The group whose server has the binding table of an exchange."""
        return ""

    def binding_deadlines(self, exchange: str) -> str:
        return f"{self.prefix}_kombu.binding_deadlines"

    def binding_member(self, routing_key: str | None, pattern: str | None, queue: str | None) -> str:
        """The entry of a binding table.

        Raises:
            ValueError: A name holds the separator: nobody could read the table any more.
        """
        parts = [routing_key or "", pattern or "", queue or ""]
        for part in parts:
            if self.separator in part:
                raise ValueError(
                    f"the queue or routing key {part!r} holds {self.separator!r}, which separates names on the server; "
                    "choose another name (or set the transport option sep everywhere)"
                )
        return self.separator.join(parts)

    def check_queue(self, queue: str) -> None:
        """Make sure that a queue has a key of its own.

        Raises:
            ValueError: The name is that of one of the transport's tables.
        """
        if queue in (self._unacked, self._unacked_index) or queue.startswith(RESERVED_PREFIXES):
            raise ValueError(
                f"a queue cannot be called {queue!r}: the Redis transport keeps a table of its own there"
            )

    def channel(self, exchange: str, routing_key: str) -> str:
        """Channel, or pattern, of a fanout exchange."""
        name = f"{self.prefix}{self._fanout_prefix}{exchange}"
        return f"{name}/{routing_key}" if routing_key and self._fanout_patterns else name


class ClusterKeys(Keys):
    """Names for Redis Cluster: everything of one queue carries the hash tag `{queue}`, so it lives in one
    slot.

    Stock kombu has no cluster layout, so this one is shared with nobody.
    """

    def group(self, queue: str) -> str:
        """A queue of messages put aside stands with its queue, so that putting aside is one step."""
        return queue.removesuffix(".dead")

    def queue(self, queue: str) -> str:
        group = self.group(queue)
        return f"{self.prefix}{{{group}}}{queue[len(group) :]}"

    def exchange_group(self, exchange: str) -> str:
        return exchange

    def binding_deadlines(self, exchange: str) -> str:
        return f"{self.prefix}_kombu.binding_deadlines.{{{exchange}}}"

    def delayed(self, queue: str) -> str:
        group = self.group(queue)
        return f"{self.prefix}_qbrokers.delayed.{{{group}}}{queue[len(group) :]}"

    def unacked(self, group: str) -> str:
        return f"{self.prefix}{self._unacked}.{{{group}}}"

    def unacked_index(self, group: str) -> str:
        return f"{self.prefix}{self._unacked_index}.{{{group}}}"

    def owners(self, group: str) -> str:
        return f"{self.prefix}_qbrokers.owners.{{{group}}}"

    def fence(self, group: str, owner: str) -> str:
        return f"{self.prefix}_qbrokers.fence.{owner}.{{{group}}}"

    def binding(self, exchange: str) -> str:
        return f"{self.prefix}_kombu.binding.{{{exchange}}}"

    def permanent_binding(self, exchange: str) -> str:
        return f"{self.prefix}_kombu.binding_permanent.{{{exchange}}}"
