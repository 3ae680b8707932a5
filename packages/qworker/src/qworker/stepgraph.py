"""Which boot step requires which, and the order that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping


class BootstepError(ValueError):
    """A blueprint cannot be built: an unknown or circular requirement, or two steps of one name."""


class StepGraph:
    """Which step requires which, by name; edges point from a step to what it requires."""

    def __init__(self, edges: Mapping[str, Iterable[str]]) -> None:
        self._edges = {name: list(required) for name, required in edges.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._edges)

    def __getitem__(self, name: str) -> list[str]:
        return self._edges[name]

    def order(self) -> list[str]:
        """Every name after those it requires, otherwise as they were given; BootstepError for a cycle."""
        done: dict[str, None] = {}
        for name in self._edges:
            self._visit(name, done, [])
        return list(done)

    def _visit(self, name: str, done: dict[str, None], path: list[str]) -> None:
        if name in done:
            return
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise BootstepError(
                f"these boot steps require each other: {circle}; drop one of the requirements"
            )
        for required in sorted(self._edges[name], key=list(self._edges).index):
            self._visit(required, done, [*path, name])
        done[name] = None

    def to_dot(self, title: str, label: Callable[[str], str], dashed: Callable[[str], bool]) -> str:
        """The graph in the language of Graphviz; optional steps are dashed."""
        lines = [f"digraph {_quote(title)} {{", "    node [shape=box, style=rounded];"]
        for name in self.order():
            style = ', style="rounded,dashed"' if dashed(name) else ""
            lines.append(f"    {_quote(name)} [label={_quote(label(name))}{style}];")
        for name in self.order():
            lines += [f"    {_quote(name)} -> {_quote(required)};" for required in self._edges[name]]
        return "\n".join([*lines, "}"]) + "\n"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
