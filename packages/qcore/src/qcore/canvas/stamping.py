"""Labels on every task of a workflow: they travel as headers, and tasks can be revoked by them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from .chains import chain
from .chords import chord
from .groups import group
from .signatures import Signature, _as_list, as_signature


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


def stamp(
    sig: Signature[Any], visitor: StampingVisitor | None, append_stamps: bool, headers: Mapping[str, Any]
) -> None:
    """Label `sig` and all that is in it, in place."""
    collected = _merged(headers, None, append_stamps)
    if isinstance(sig, chord):
        _stamp_chord(sig, visitor, append_stamps, collected)
    elif isinstance(sig, (group, chain)):
        _stamp_members(sig, visitor, append_stamps, collected)
    else:
        _stamp_links(sig, visitor, append_stamps, collected)
        own = visitor.on_signature(sig, **collected) if visitor is not None else None
        _set(sig, _merged(collected, own, append_stamps), append_stamps)


def _stamp_members(
    sig: group | chain, visitor: StampingVisitor | None, append_stamps: bool, headers: dict[str, Any]
) -> None:
    is_group = isinstance(sig, group)
    if visitor is not None:
        own = (visitor.on_group_start if is_group else visitor.on_chain_start)(sig, **headers)
        headers = _merged(headers, own, append_stamps)
    _stamp_links(sig, visitor, append_stamps, headers)
    for task in sig.tasks:
        stamp(task, visitor, append_stamps, headers)
    if visitor is not None:
        (visitor.on_group_end if is_group else visitor.on_chain_end)(sig, **headers)


def _stamp_chord(
    sig: chord, visitor: StampingVisitor | None, append_stamps: bool, headers: dict[str, Any]
) -> None:
    inner = headers
    if visitor is not None:
        inner = _merged(headers, visitor.on_chord_header_start(sig, **headers), append_stamps)
    for task in sig.tasks.tasks:
        stamp(task, visitor, append_stamps, inner)
    if visitor is not None:
        visitor.on_chord_header_end(sig, **inner)
    if sig.kwargs["body"] is None:
        return
    outer = headers
    if visitor is not None:
        outer = _merged(headers, visitor.on_chord_body(sig, **headers), append_stamps)
    stamp(sig.body, visitor, append_stamps, outer)


def _stamp_links(
    sig: Signature[Any], visitor: StampingVisitor | None, append_stamps: bool, headers: dict[str, Any]
) -> None:
    for option in ("link", "link_error"):
        if not sig.options.get(option):
            continue
        linked = []
        for link in _as_list(sig.options[option]):
            copy = as_signature(link, sig._app).clone()
            own: Mapping[str, Any] | None = None
            if visitor is not None:
                own = (visitor.on_callback if option == "link" else visitor.on_errback)(copy, **headers)
            stamp(copy, visitor, append_stamps, _merged(headers, own, append_stamps))
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


def _set(sig: Signature[Any], headers: dict[str, Any], append_stamps: bool) -> None:
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
