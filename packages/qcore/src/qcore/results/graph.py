"""A directed graph of results: who led to whom."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TextIO, TypeVar

N = TypeVar("N", bound=Hashable)


class DependencyGraph(Generic[N]):
    """Nodes and their arcs; `str()` shows it as indented text, `to_dot` writes it for Graphviz.

    Args:
        formatter: text of a node in dot output; default `str`.
    """

    def __init__(self, formatter: Callable[[N], str] | None = None) -> None:
        self.adjacent: dict[N, list[N]] = {}
        self.formatter: Callable[[N], str] = formatter or str

    def add_arc(self, node: N) -> None:
        """Add `node`, without connections if it is new."""
        self.adjacent.setdefault(node, [])

    def add_edge(self, start: N, end: N) -> None:
        """Connect two nodes."""
        self.add_arc(start)
        self.add_arc(end)
        self.adjacent[start].append(end)

    def __getitem__(self, node: N) -> list[N]:
        return self.adjacent[node]

    def __iter__(self) -> Iterator[N]:
        return iter(self.adjacent)

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, node: object) -> bool:
        return node in self.adjacent

    def edges(self) -> list[N]:
        """The nodes that have connections."""
        return [node for node, adjacent in self.adjacent.items() if adjacent]

    def valency_of(self, node: N) -> int:
        """How many arcs lie below `node`."""
        return sum(1 + self.valency_of(child) for child in self.adjacent.get(node, ()))

    def topsort(self) -> list[N]:
        """The nodes, each after all that it points at."""
        done: dict[N, None] = {}

        def visit(node: N) -> None:
            if node not in done:
                for child in self.adjacent[node]:
                    visit(child)
                done[node] = None

        for node in self.adjacent:
            visit(node)
        return list(done)

    def to_dot(self, fh: TextIO) -> None:
        """Write the graph in the dot language to the open text file `fh`."""
        fh.write("digraph dependencies {\n  node [shape=box];\n")
        for node, adjacent in self.adjacent.items():
            fh.write(f"  {self._quoted(node)};\n")
            for child in adjacent:
                fh.write(f"  {self._quoted(node)} -> {self._quoted(child)};\n")
        fh.write("}\n")

    def _quoted(self, node: N) -> str:
        text = self.formatter(node).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'

    def _lines(self, node: N, level: int) -> Iterator[str]:
        yield f"{'    ' * level}{node}({self.valency_of(node)})"
        for child in self.adjacent.get(node, ()):
            yield from self._lines(child, level + 1)

    def __str__(self) -> str:
        roots = sorted(self.edges() or list(self.adjacent), key=self.valency_of)
        return "\n".join(line for node in roots for line in self._lines(node, 0))

    __repr__ = __str__
