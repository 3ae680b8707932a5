"""What every kind of result is: something with an id that can be walked from its parent to its children."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from qcore.errors import IncompleteStream

from .graph import DependencyGraph


class ResultBase(ABC):
    """Base of all results."""

    parent: ResultBase | None = None

    @property
    @abstractmethod
    def children(self) -> list[ResultBase] | None:
        """Results that followed from this one."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it is over."""

    @abstractmethod
    def get(self, timeout: float | None = None, propagate: bool = True, **options: Any) -> Any:
        """Wait for the value."""

    @abstractmethod
    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise if it failed; do not wait."""

    @abstractmethod
    def as_tuple(self) -> Any:
        """The plain form."""

    def ancestors(self) -> list[ResultBase]:
        """Parents, the nearest first."""
        found, node = [], self.parent
        while node is not None:
            found.append(node)
            node = node.parent
        return found

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[ResultBase | None, ResultBase]]:
        """`(parent, node)` pairs of the graph below this result, breadth first.

        Raises:
            IncompleteStream: a node is not ready, and `intermediate` is false.
        """
        waiting: deque[tuple[ResultBase | None, ResultBase]] = deque([(None, self)])
        while waiting:
            parent, node = waiting.popleft()
            yield parent, node
            if node.ready():
                waiting.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream(f"{node} is not ready, so what follows from it is not known yet")

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[ResultBase, Any]]:
        """`(result, value)` pairs of the graph below this result.

        Args:
            intermediate: yield what is there instead of raising `IncompleteStream`.
            kwargs: arguments of `get`.
        """
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, node.get(**kwargs)

    def get_leaf(self) -> Any:
        """The value at the end of the graph."""
        value = None
        for _, node in self.iterdeps():
            value = node.get()
        return value

    def build_graph(
        self, intermediate: bool = False, formatter: Callable[[ResultBase], str] | None = None
    ) -> DependencyGraph[ResultBase]:
        """The graph below this result."""
        graph: DependencyGraph[ResultBase] = DependencyGraph(formatter)
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph[ResultBase]:
        """The graph below this result; raises `IncompleteStream` as `collect` does."""
        return self.build_graph()

    def as_list(self) -> list[str]:
        """Own id, then those of all parents."""
        return [str(node.id) for node in (self, *self.ancestors())]  # type: ignore[attr-defined]
