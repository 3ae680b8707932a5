from typing import Any

from qcore.canvas import StampingVisitor, chord, group


class Visitor(StampingVisitor):
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return {"header": "value"}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
        return {"on_callback": True}

    def on_errback(self, errback: Any, **headers: Any) -> dict[str, Any]:
        return {"on_errback": True}


class InGroup(StampingVisitor):
    def on_group_start(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return {"in_group": [True], "stamped_headers": ["in_group"]}

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return {"plain": 1, "stamped_headers": []}


def test_a_visitor_stamps_tasks_callbacks_and_errbacks(app: Any) -> None:
    add, xsum = app.tasks["add"], app.tasks["xsum"]
    flow = chord([add.s(1, 1), add.s(2, 2)], xsum.s())
    flow.link(add.s(9))
    flow.link_error(app.tasks["on_error"].s())
    flow.stamp(Visitor())
    for task in flow.tasks.tasks:
        assert task.options == {"header": "value", "stamped_headers": ["header"]}
    (callback,) = flow.body.options["link"]
    assert callback.options["on_callback"] is True
    assert set(callback.options["stamped_headers"]) == {"header", "on_callback"}
    (errback,) = flow.body.options["link_error"]
    assert set(errback.options["stamped_headers"]) == {"header", "on_errback"}
    assert flow.body.options["stamped_headers"] == ["header"]


def test_what_is_not_listed_is_a_header_but_no_stamp(app: Any) -> None:
    add = app.tasks["add"]
    members = group(add.s(1, 1), add.s(2, 2)).stamp(InGroup())
    for task in members.tasks:
        assert task.options["stamped_headers"] == ["in_group"]
        assert (task.options["in_group"], task.options["plain"]) == ([True], 1)


def test_stamps_are_replaced_or_collected(app: Any) -> None:
    sig = app.tasks["add"].s(1, 1)
    sig.stamp(a=1).stamp(a=2)
    assert sig.options["a"] == 2
    sig.stamp(append_stamps=True, a=3)
    assert sig.options["a"] == [3, 2]
    assert sig.options["stamped_headers"] == ["a"]


def test_what_is_linked_later_is_not_stamped(app: Any) -> None:
    add = app.tasks["add"]
    sig = add.s(1, 1).stamp(a=1)
    sig.link(add.s(2))
    assert "stamped_headers" not in sig.options["link"][0].options
