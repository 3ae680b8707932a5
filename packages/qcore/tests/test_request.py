"""The request context."""

import pytest

from qcore.request import Context, user_headers


def test_unset_attributes_have_the_documented_defaults():
    request = Context()

    assert request.id is None
    assert request.retries == 0
    assert request.called_directly is True
    assert request.children == []


def test_children_are_never_shared_between_requests():
    first, second = Context(), Context()
    first.children.append("x")

    assert second.children == []


def test_an_unknown_attribute_is_an_error_and_get_has_a_default():
    with pytest.raises(AttributeError):
        Context().nothing_of_the_kind  # noqa: B018
    assert Context().get("nothing_of_the_kind", 5) == 5


def test_the_limits_are_unpacked():
    request = Context(timelimit=[10, 5])

    assert (request.time_limit, request.soft_time_limit) == (10, 5)


def test_only_the_users_own_headers_remain():
    assert user_headers({"task": "t", "id": "1", "tenant": 7, "x-death": []}) == {"tenant": 7}
    assert user_headers({"task": "t", "id": "1"}) is None


def test_a_continuation_keeps_id_workflow_and_limits():
    request = Context(id="1", root_id="r", group="g", chord={"task": "body"}, timelimit=[2, 1], retries=3)
    options = request.as_execution_options()

    assert options["task_id"] == "1"
    assert options["group_id"] == "g"
    assert options["chord"] == {"task": "body"}
    assert (options["time_limit"], options["soft_time_limit"]) == (2, 1)
