"""Protocol 2 out, 1 and 2 in (W4, W5, W8, W9)."""

import pytest

from qcore.message import (
    MalformedMessage,
    TaskMessage,
    check_body,
    check_headers,
    from_protocol_1,
    nested_callbacks,
    origin,
    short_repr,
)

W4_01_ORDER = [
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
    "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
    "stamps",
]  # fmt: skip


def test_protocol_2_writes_every_header_in_the_order_of_the_wire():
    headers, _ = TaskMessage(task="t.add", id="1").protocol_2()

    assert list(headers) == W4_01_ORDER


def test_the_time_limits_are_hard_then_soft():
    headers, _ = TaskMessage(task="t", id="1", time_limit=10, soft_time_limit=5).protocol_2()

    assert headers["timelimit"] == [10, 5]


def test_a_task_that_starts_a_flow_is_its_own_root():
    headers, _ = TaskMessage(task="t", id="1").protocol_2()

    assert headers["root_id"] == "1"
    assert headers["parent_id"] is None


def test_user_headers_win_over_those_of_the_protocol():
    headers, _ = TaskMessage(task="t", id="1", headers={"shadow": "mine", "tenant": 7}).protocol_2()

    assert headers["shadow"] == "mine"
    assert headers["tenant"] == 7


def test_the_body_is_args_kwargs_and_embed_with_all_its_keys():
    _, body = TaskMessage(task="t", id="1", args=(1,), kwargs={"x": 2}).protocol_2()

    assert body == ((1,), {"x": 2}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None})


def test_the_origin_names_process_and_host():
    assert origin().startswith("gen")
    assert "@" in origin()


def test_protocol_1_keeps_everything_in_the_body():
    headers, body = TaskMessage(task="t", id="1", args=(2,), group="g").protocol_1()

    assert headers == {}
    assert body["task"] == "t"
    assert body["args"] == (2,)
    assert body["taskset"] == body["group"] == "g"
    assert body["utc"] is True


def test_protocol_1_nests_a_chain_into_callbacks():
    last, following = {"task": "c", "options": {}}, {"task": "b", "options": {}}

    nested = nested_callbacks([last, following])

    assert nested["task"] == "b"
    assert nested["options"]["link"] == [{"task": "c", "options": {}}]
    assert following["options"] == {}


def test_protocol_1_is_read_into_the_shape_of_protocol_2():
    headers, body = from_protocol_1(
        {"task": "t", "id": "1", "args": [1], "kwargs": {"x": 2}, "timelimit": [3, 4]}
    )

    assert headers["task"] == "t"
    assert headers["timelimit"] == [3, 4]
    assert body == [[1], {"x": 2}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


def test_the_hybrid_form_keeps_its_headers():
    headers, _ = from_protocol_1({"task": "t", "id": "1"}, {"retries": 2})

    assert headers["retries"] == 2


@pytest.mark.parametrize("payload", [None, 7, [], {}, {"id": "1"}, {"task": "t"}, {"task": 5, "id": "1"}])
def test_a_body_that_names_no_task_is_malformed(payload):
    with pytest.raises(MalformedMessage):
        from_protocol_1(payload)


@pytest.mark.parametrize(
    "headers",
    [{"task": "t"}, {"task": "t", "id": None}, {"task": "t", "id": 3}, {"task": "", "id": "1"},
     {"task": ["t"], "id": "1"}, {"task": "t", "id": "1", "stamps": "x"}],
)  # fmt: skip
def test_headers_without_usable_name_and_id_are_malformed(headers):
    with pytest.raises(MalformedMessage):
        check_headers(headers)


def test_a_minimal_message_passes():
    check_headers({"task": "t", "id": "1"})

    assert check_body([[], {}, None]) == ([], {}, {})


@pytest.mark.parametrize(
    "body", [None, [], [[], {}], [1, {}, {}], [[], [], {}], [[], {}, 5], "text", {"a": 1}]
)
def test_any_other_body_is_malformed(body):
    with pytest.raises(MalformedMessage):
        check_body(body)


def test_long_arguments_are_cut_in_the_text_form():
    assert len(short_repr("x" * 10_000)) <= 1024
    assert len(short_repr(list(range(10_000)))) <= 1024


@pytest.mark.parametrize("value", [(), {}, (2, 3), {"x": 1}, None, "text", [1.5, True]])
def test_short_arguments_have_python_text_forms(value):
    assert short_repr(value) == repr(value)
