"""Labels on every task of a workflow: they travel as headers, and tasks can be revoked by them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import frozen


class StampingVisitor(ABC):
    """Makes the labels while a workflow is walked.

    Each method gets the element and the headers collected so far, and returns a mapping of headers. Its key
    `stamped_headers` lists which of them are labels; without it all are.
    """

    def on_group_start(self, sig: Any, **headers: Any) -> Mapping[str, Any] | None:
        """Before the members of a group; what is returned goes to all of them."""
        return {}

    def on_group_end(self, sig: Any, **headers: Any) -> None:  # noqa: B027 - a hook
        """After the members of a group."""

    def on_chain_start(self, sig: Any, **headers: Any) -> Mapping[str, Any] | None:
        """Before the steps of a chain; what is returned goes to all of them."""
        return {}

    def on_chain_end(self, sig: Any, **headers: Any) -> None:  # noqa: B027 - a hook
        """After the steps of a chain."""

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> Mapping[str, Any] | None:
        """For every task."""

    def on_chord_header_start(self, sig: Any, **headers: Any) -> Mapping[str, Any] | None:
        """Before the header of a chord (`sig.tasks`)."""
        return self.on_group_start(sig.tasks, **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:
        """After the header of a chord."""
        self.on_group_end(sig.tasks, **headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> Mapping[str, Any] | None:
        """Before the body of a chord (`sig.body`)."""
        return {}

    def on_callback(self, callback: Any, **headers: Any) -> Mapping[str, Any] | None:
        """For every linked callback."""
        return {}

    def on_errback(self, errback: Any, **headers: Any) -> Mapping[str, Any] | None:
        """For every linked errback."""
        return {}


@frozen
class Stamper:
    """Labels workflows.

    Args:
        as_signature: the signature for a linked mapping: `as_signature(mapping, app)`.
        visitor: makes the labels; None sets those that are given.
        append_stamps: collect the values of a label in a list instead of replacing them.
    """

    as_signature: Callable[[Any, Any], Any]
    visitor: StampingVisitor | None
    append_stamps: bool

    def stamp(self, sig: Any, headers: Mapping[str, Any]) -> None:
        """Label `sig` and all that is in it, in place."""
        collected = self._merged(headers, None)
        if sig.subtask_type == "chord":
            self._chord(sig, collected)
        elif sig.subtask_type in ("group", "chain"):
            self._members(sig, collected)
        else:
            self._links(sig, collected)
            own = self.visitor.on_signature(sig, **collected) if self.visitor is not None else None
            _set(sig, self._merged(collected, own), self.append_stamps)

    def _merged(self, headers: Mapping[str, Any], more: Mapping[str, Any] | None) -> dict[str, Any]:
        return _merged(headers, more, self.append_stamps)

    def _members(self, sig: Any, headers: dict[str, Any]) -> None:
        visitor, is_group = self.visitor, sig.subtask_type == "group"
        if visitor is not None:
            own = (visitor.on_group_start if is_group else visitor.on_chain_start)(sig, **headers)
            headers = self._merged(headers, own)
        self._links(sig, headers)
        for task in sig.tasks:
            self.stamp(task, headers)
        if visitor is not None:
            (visitor.on_group_end if is_group else visitor.on_chain_end)(sig, **headers)

    def _chord(self, sig: Any, headers: dict[str, Any]) -> None:
        visitor, inner, outer = self.visitor, headers, headers
        if visitor is not None:
            inner = self._merged(headers, visitor.on_chord_header_start(sig, **headers))
        for task in sig.tasks.tasks:
            self.stamp(task, inner)
        if visitor is not None:
            visitor.on_chord_header_end(sig, **inner)
        if sig.kwargs["body"] is None:
            return
        if visitor is not None:
            outer = self._merged(headers, visitor.on_chord_body(sig, **headers))
        self.stamp(sig.body, outer)

    def _links(self, sig: Any, headers: dict[str, Any]) -> None:
        for option in ("link", "link_error"):
            links = sig.options.get(option)
            if not links:
                continue
            linked = []
            for link in links if isinstance(links, (list, tuple)) else [links]:
                copy = self.as_signature(link, sig._app).clone()
                own: Mapping[str, Any] | None = None
                if self.visitor is not None:
                    call = self.visitor.on_callback if option == "link" else self.visitor.on_errback
                    own = call(copy, **headers)
                self.stamp(copy, self._merged(headers, own))
                linked.append(copy)
            sig.options[option] = linked


def _merged(
    headers: Mapping[str, Any], more: Mapping[str, Any] | None, append_stamps: bool
) -> dict[str, Any]:
    """Headers with more of them; `stamped_headers` lists all labels."""
    found = dict(headers)
    if "stamped_headers" not in found:
        found["stamped_headers"] = [name for name in found if name != "stamps"]
    if more:
        names = more.get("stamped_headers")
        if names is None:
            names = [name for name in more if name != "stamps"]
        for name, value in more.items():
            if name != "stamped_headers":
                found[name] = _joined(found[name], value) if append_stamps and name in found else value
        found["stamped_headers"] = _union(found["stamped_headers"], names)
    return found


def _set(sig: Any, headers: dict[str, Any], append_stamps: bool) -> None:
    options = sig.options
    names = headers["stamped_headers"]
    before = options.get("stamped_headers") or []
    for name, value in headers.items():
        if name == "stamped_headers":
            continue
        if append_stamps and name in before and name in options:
            value = _joined(value, options[name])
        options[name] = value
    if names or before:
        options["stamped_headers"] = _union(names, before)


def _union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return list(dict.fromkeys((*first, *second)))


def _joined(first: Any, second: Any) -> list[Any]:
    values = []
    for value in (*_values(first), *_values(second)):
        if value not in values:
            values.append(value)
    return values


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
