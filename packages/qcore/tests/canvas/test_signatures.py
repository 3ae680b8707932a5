import copy
import json
import pickle
from typing import Any

import pytest

from qcore.canvas import Signature, chain, chord, chunks, group, maybe_signature, signature
from qcore.results import EagerResult


def test_the_text_shows_name_and_arguments(app: Any) -> None:
    add = app.tasks["add"]
    assert repr(add.signature((2, 2), countdown=10)) == "add(2, 2)"
    assert repr(add.s(2, 2, debug=True)) == "add(2, 2, debug=True)"
    assert repr(signature("tasks.add", args=(2, 2), countdown=10)) == "tasks.add(2, 2)"


def test_the_parts_are_readable(app: Any) -> None:
    sig = app.tasks["add"].signature((2, 2), {"debug": True}, countdown=10)
    assert sig.args == (2, 2)
    assert sig.kwargs == {"debug": True}
    assert sig.options == {"countdown": 10}


def test_json_has_the_keys_of_the_wire(app: Any) -> None:
    assert json.loads(json.dumps(app.tasks["add"].si(1, 2).set(countdown=2))) == {
        "task": "add",
        "args": [1, 2],
        "kwargs": {},
        "options": {"countdown": 2},
        "subtask_type": None,
        "immutable": True,
    }


def test_unknown_keys_are_kept(app: Any) -> None:
    sig = app.signature({"task": "add", "args": [1], "chord_size": 3})
    assert sig["chord_size"] == 3
    assert sig.options == {}


def test_new_arguments_come_first_and_keywords_win(app: Any) -> None:
    sig = app.tasks["add"].s(2, debug=True).clone((4,), {"debug": False}, countdown=1)
    assert (sig.args, sig.kwargs, sig.options) == ((4, 2), {"debug": False}, {"countdown": 1})


def test_an_immutable_signature_takes_options_only(app: Any) -> None:
    sig = app.tasks["add"].si(2, 2).clone((9,), {"debug": True}, countdown=3)
    assert (sig.args, sig.kwargs, sig.options) == ((2, 2), {}, {"countdown": 3})


def test_a_clone_shares_no_list_of_links(app: Any) -> None:
    add = app.tasks["add"]
    sig = add.s(1)
    sig.link(add.s(2))
    sig.clone().link(add.s(3))
    assert len(sig.options["link"]) == 1


def test_links_are_added_once(app: Any) -> None:
    add = app.tasks["add"]
    sig = add.s(1, 1)
    assert sig.link(add.s(2)) == add.s(2)
    sig.link(add.s(2))
    assert sig.on_error(app.tasks["on_error"].s()) is sig
    assert len(sig.options["link"]) == 1
    assert len(sig.options["link_error"]) == 1


def test_a_single_link_may_be_given_without_a_list(app: Any) -> None:
    add = app.tasks["add"]
    sig = add.signature((1, 1), link=add.s(2))
    sig.link(add.s(3))
    assert [link.args for link in sig.options["link"]] == [(2,), (3,)]


def test_calling_runs_here(app: Any) -> None:
    assert app.tasks["add"].s(2)(8) == 10


def test_copies_and_pickles_are_equal(app: Any) -> None:
    add = app.tasks["add"]
    for sig in (
        add.s(1, 2),
        add.s(1, 1) | add.s(2),
        group(add.s(1, 1), add.s(2, 2)),
        chord([add.s(1, 1)], add.s(1)),
    ):
        assert copy.deepcopy(sig) == sig
        assert copy.copy(sig) == sig
        assert pickle.loads(pickle.dumps(sig)) == sig


def test_maybe_signature_takes_anything(app: Any) -> None:
    assert maybe_signature(None) is None
    sig = app.tasks["add"].s(1)
    assert maybe_signature(sig) is sig
    assert isinstance(maybe_signature({"task": "add", "args": [1]}, app=app), Signature)
    assert type(maybe_signature(dict(group(sig)), app=app)) is group


def test_freezing_twice_keeps_the_ids(app: Any) -> None:
    add = app.tasks["add"]
    for sig in (add.s(1), add.s(1) | add.s(2), group(add.s(1), add.s(2)), chord([add.s(1)], add.s(2))):
        assert sig.freeze().as_tuple() == sig.freeze().as_tuple()


def test_a_chain_has_the_id_of_its_last_task(app: Any) -> None:
    add = app.tasks["add"]
    steps = add.s(1, 1) | add.s(2)
    assert steps.freeze().id == steps.id == steps.tasks[-1].id


def test_eager_calls_give_eager_results(eager_app: Any) -> None:
    add = eager_app.tasks["add"]
    assert isinstance(add.s(1).delay(2), EagerResult)
    assert ~add.s(1, 2) == 3


def test_one_or_the_other_with_something_else_is_a_type_error(app: Any) -> None:
    with pytest.raises(TypeError):
        app.tasks["add"].s(1) | 3


def test_composition_takes_the_expected_form(app: Any) -> None:
    add, same, xsum = app.tasks["add"], app.tasks["same"], app.tasks["xsum"]
    pair = group(add.s(1, 1), add.s(2, 2))
    assert type(add.s(1, 1) | add.s(2)) is chain
    assert chain(add.s(1, 1), add.s(2), add.s(3)) == add.s(1, 1) | add.s(2) | add.s(3)
    assert type(pair | xsum.s()) is chord
    assert type(chain(pair, xsum.s())) is chord
    assert repr(pair | xsum.s() | add.s(1)) == "%(xsum((add(1, 1), add(2, 2))) | add(1))"
    assert repr((add.s(4, 4) | add.s(8)) | add.s(10)) == "add(4, 4) | add(8) | add(10)"
    assert repr(pair) == "(add(1, 1), add(2, 2))"
    assert repr(chord([add.s(1), add.s(2)], add.s(1))) == "%add((add(1), add(2)), 1)"
    assert repr(add.s(1, 1) | group([add.s(2)]) | same.s()) == "add(1, 1) | add(2) | same()"
    assert len((add.s(1, 1) | (add.s(2) | add.s(3))).tasks) == 3


def test_skew_spreads_countdowns(app: Any) -> None:
    members = group(app.tasks["add"].s(i, i) for i in range(4)).skew(start=1, stop=3)
    assert [task.options["countdown"] for task in members.tasks] == [1, 2, 3, 1]


def test_chunks_are_cut(app: Any) -> None:
    add = app.tasks["add"]
    parts = add.chunks(zip(range(7), range(7), strict=True), 3).group()
    assert [len(part.kwargs["it"]) for part in parts.tasks] == [3, 3, 1]
    with pytest.raises(ValueError, match="at least 1"):
        chunks(add.s(), [], 0)


def test_map_and_starmap_show_what_they_do(app: Any) -> None:
    assert repr(app.tasks["xsum"].map([[1], [2]])) == "[xsum(x) for x in [[1], [2]]]"
    assert repr(app.tasks["add"].starmap([(1, 2)])) == "[add(*x) for x in [(1, 2)]]"


def test_a_group_takes_no_link(app: Any) -> None:
    add = app.tasks["add"]
    with pytest.raises(TypeError, match="link"):
        group(add.s(1, 1), add.s(2, 2)).apply_async(link=add.s(1))


def test_links_of_a_group_go_to_its_members(app: Any) -> None:
    add = app.tasks["add"]
    members = group(add.s(1, 1), add.s(2, 2))
    members.link(add.s(5))
    members.link_error(app.tasks["on_error"].s())
    for task in members.tasks:
        assert [link.args for link in task.options["link"]] == [(5,)]
        assert [link.task for link in task.options["link_error"]] == ["on_error"]


def test_a_chord_without_body_says_so(app: Any) -> None:
    with pytest.raises(TypeError, match="body"):
        chord([app.tasks["add"].s(1, 1)]).apply_async()


def test_errbacks_may_also_go_to_the_header(app: Any) -> None:
    add, on_error = app.tasks["add"], app.tasks["on_error"]
    plain = chord([add.s(1, 1)], add.s(1))
    plain.link_error(on_error.s())
    assert "link_error" not in plain.tasks.tasks[0].options
    app.conf.task_allow_error_cb_on_chord_header = True
    both = chord([add.s(1, 1)], add.s(1))
    both.link_error(on_error.s())
    assert both.tasks.tasks[0].options["link_error"] == [on_error.s()]
    assert both.body.options["link_error"] == [on_error.s()]
